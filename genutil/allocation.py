"""Tensors that are too large for this machine: refused before they are made, or explained afterwards."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from genutil.errors import USER_ERRORS, ConfigError
from genutil.memory import require_memory

_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full)
_LOOKED_AT = 64 * 1024**2
"""Bytes from which on a tensor is compared with the memory that is free."""
_FAILURES = re.compile(
    r"can't allocate memory|not enough memory|out of memory|Unable to allocate|array is too big"
    r"|negative dimension|Storage size calculation overflow|integer multiplication overflow"
    r"|Stride calculation overflow|Overflow when unpacking|too large to convert|convert float infinity",
    re.IGNORECASE,
)
_SINGLE_VALUE = re.compile(r"Expected more than 1 (value per channel|spatial element) when training, got .*")


class _Refusing(TorchFunctionMode):
    """Compares the size of every large tensor with the memory that is free before torch makes it."""

    def __init__(self, subject: Callable[[tuple[int, ...]], str]) -> None:
        super().__init__()
        self._subject = subject

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS and torch.device(kwargs.get("device") or "cpu").type == "cpu":
            self._check(_shape(args, kwargs), kwargs.get("dtype") or torch.get_default_dtype())
        return func(*args, **kwargs)

    def _check(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        num_bytes = math.prod(shape) * dtype.itemsize
        if num_bytes >= _LOOKED_AT:
            sides = " × ".join(map(str, shape))
            require_memory(
                f"{self._subject(shape)}: a tensor of {sides} numbers", num_bytes, "choose a smaller size"
            )


def _shape(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, ...]:
    first = args[0] if args else kwargs.get("size", ())
    sizes = first if isinstance(first, (tuple, list)) else args
    return tuple(size for size in sizes if isinstance(size, int))


@contextlib.contextmanager
def sizes_checked(what: str, sizes: Callable[[], Mapping[str, float]]) -> Iterator[None]:
    """Around the making of a network or a data set.

    Args:
        what: is made, such as `model: mine:Net`.
        sizes: gives the keys that decide how large it is.

    Raises:
        ConfigError: it does not fit into memory; the message names the key whose size is at fault, if that
            can be told from the shape, or all keys.
    """

    def subject(shape: tuple[int, ...]) -> str:
        for key, value in sizes().items():
            if shape and value == max(shape):
                return f"{key}: {value}"
        return f"{what} with " + ", ".join(f"{key} {value}" for key, value in sizes().items())

    with allocations_explained(lambda: subject(())), _Refusing(subject):
        yield


@contextlib.contextmanager
def allocations_explained(what: Callable[[], str]) -> Iterator[None]:
    """Around what may need more memory than there is.

    Args:
        what: gives the beginning of the message: what was done, with the keys that decide its size.

    Raises:
        ConfigError: memory was too small, or a batch norm had a single value to normalise.
    """
    try:
        yield
    except USER_ERRORS:
        raise
    except (MemoryError, RuntimeError, OverflowError, TypeError, ValueError) as error:
        text = str(error).strip().partition("\n")[0]
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or _FAILURES.search(text):
            reason = re.sub(r"^\[enforce fail at [^]]*\]\s*\.?\s*", "", text)
            raise ConfigError(
                f"{what()} needs more memory than there is ({reason}); choose smaller sizes"
            ) from error
        if single := _SINGLE_VALUE.search(text):
            raise ConfigError(
                f"{what()}: a norm had one value of a channel to normalise ({single[0]}); choose a larger "
                "image_size, or a batch_size that leaves no process with a single image of a batch"
            ) from error
        raise


def require_memory_for_training(
    model: torch.nn.Module, path: str, has_momentum: bool, processes: int
) -> None:
    """Refuse a network whose gradients and momenta do not fit beside its weights in the machine's memory.

    Args:
        model: the network, on the CPU.
        path: what the experiment's `model` names.
        has_momentum: the optimizer keeps one number for each weight.
        processes: how many of this machine train it.

    Raises:
        ConfigError: they need more than is free.
    """
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    num_bytes = weights * (2 if has_momentum else 1) * processes
    if num_bytes >= _LOOKED_AT:
        what = f"model: training {path}, beside the weights,"
        require_memory(what, num_bytes, "choose a smaller network or fewer processes")
