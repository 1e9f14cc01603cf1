"""Execution of networks: compilation by torch.compile, memory format."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from genutil.exceptions import ConfigError
from wirings.structure import parts_to_compile

_ORIGINS = ("torch._dynamo", "torch._inductor", "torch._functorch")
_COMPILERS = ("g++", "clang++", "gcc", "clang", "cl")


def compile_network(network: nn.Module, device: torch.device, backend: str = "inductor") -> None:
    """Compile the forward and backward pass, one graph each; this happens in the first call.

    In continuous time, the number of the solver's steps depends on the states, which no compiler knows: the
    dynamics and the stem are compiled (`parts_to_compile`), and the solver calls them.

    Args:
        network: on `device`.
        device: of the network.
        backend: of torch.compile.

    Raises:
        ConfigError: there is no C++ compiler, which torch.compile needs on the CPU.
    """
    compilers = (os.environ.get("CXX", ""), *_COMPILERS)
    if (
        backend == "inductor"
        and device.type == "cpu"
        and not any(name and shutil.which(name) for name in compilers)
    ):
        raise ConfigError(
            "compile: needs a C++ compiler on the CPU, and none is found; install g++ or name one in $CXX, "
            "or remove --compile"
        )
    for module in parts_to_compile(network):
        module.compile(fullgraph=True, backend=backend)


def use_channels_last(network: nn.Module) -> None:
    """Let a network get images whose channels are last in memory; what it computes is the same."""

    def convert(_network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].contiguous(memory_format=torch.channels_last), *inputs[1:])

    network.register_forward_pre_hook(convert)


@contextlib.contextmanager
def compile_errors_as_config_errors() -> Iterator[None]:
    """Convert errors of torch.compile into a message that says what to do.

    Raises:
        ConfigError: the network, most likely a user's own, cannot be compiled as one graph.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(_ORIGINS):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"compile: the network cannot be compiled as one graph ({reason}); remove --compile, or define a "
            "method parts_to_compile() of the network that returns the modules that can be compiled"
        ) from error
