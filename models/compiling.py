"""How a network is run: compiled by torch.compile, with channels last in memory."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from genutil.errors import ConfigError
from wirings.structure import parts_to_compile

_ORIGINS = ("torch._dynamo", "torch._inductor", "torch._functorch")
_COMPILERS = ("g++", "clang++", "gcc", "clang", "cl")


def compile_network(network: nn.Module, device: torch.device, backend: str = "inductor") -> None:
    """Let the forward and backward passes be compiled, at the first of them, as one piece each.

    In continuous time, the solver decides by the states how many steps it makes, which no compiler can know:
    the dynamics and the stem are compiled (`parts_to_compile`), and the solver calls them.

    Args:
        network: on `device`.
        device: where it will run.
        backend: of torch.compile.

    Raises:
        ConfigError: there is no C++ compiler, which the CPU's code needs.
    """
    compilers = (os.environ.get("CXX", ""), *_COMPILERS)
    if (
        backend == "inductor"
        and device.type == "cpu"
        and not any(name and shutil.which(name) for name in compilers)
    ):
        raise ConfigError(
            "compile: needs a C++ compiler on the CPU, and none is found; install g++ or name one in $CXX, "
            "or leave --compile out"
        )
    for part in parts_to_compile(network):
        part.compile(fullgraph=True, backend=backend)


def use_channels_last(network: nn.Module) -> None:
    """Let a network get images whose channels are last in memory; what it computes is the same."""

    def convert(_network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].contiguous(memory_format=torch.channels_last), *inputs[1:])

    network.register_forward_pre_hook(convert)


@contextlib.contextmanager
def failures_explained() -> Iterator[None]:
    """Within it, what torch.compile cannot do is an error that says what to do instead.

    Raises:
        ConfigError: the network, of one's own most likely, cannot be compiled in one piece.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(_ORIGINS):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"compile: the network cannot be compiled in one piece ({reason}); leave --compile out, or give "
            "the network a method parts_to_compile() that returns the modules that can"
        ) from error
