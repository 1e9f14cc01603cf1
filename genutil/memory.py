"""Memory: how much is available, and errors for tensors that do not fit into it."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from genutil.exceptions import USER_ERRORS, ConfigError

_ROOT = Path("/")
_FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full)
_CHECKED_FROM = 64 * 1024**2
"""Bytes from which on a tensor is compared with the available memory."""
_FAILURES = re.compile(
    r"can't allocate memory|not enough memory|out of memory|Unable to allocate|array is too big"
    r"|negative dimension|Storage size calculation overflow|integer multiplication overflow"
    r"|Stride calculation overflow|Overflow when unpacking|too large to convert|convert float infinity",
    re.IGNORECASE,
)
_SINGLE_VALUE = re.compile(r"Expected more than 1 (value per channel|spatial element) when training, got .*")


def available_memory(root: Path = _ROOT) -> int | None:
    """Available bytes, swap included, within the limits of the process's control group; None: not known.

    Args:
        root: folder that contains `proc` and `sys`.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        kilobytes = {line.partition(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
        free = 1024 * (kilobytes["MemAvailable"] + kilobytes.get("SwapFree", 0))
    except (OSError, ValueError, KeyError, IndexError):
        return None
    limits = [left for left in (_left_in_group(root, *names) for names in _GROUP_FILES) if left is not None]
    return max(min([free, *limits]), 0)


_GROUP_FILES = (
    ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""(folder, limit, usage, reclaimable) of both versions of control groups, as seen from inside."""


def _left_in_group(root: Path, folder: str, limit: str, used: str, cached: str) -> int | None:
    group = root / folder
    try:
        most, now = int((group / limit).read_text()), int((group / used).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such file, or `max`
        return None
    return most - now + int(stat.get(cached, 0))


def require_memory(
    subject: str, num_bytes: int, advice: str, available: Callable[[], int | None] = available_memory
) -> None:
    """Raise an error for tensors that do not fit into memory, before the kernel ends the process.

    Args:
        subject: beginning of the message, with the key and its value.
        num_bytes: bytes that are needed.
        advice: what to do.
        available: returns the available bytes.

    Raises:
        ConfigError: more is needed than available.
    """
    free = available()
    if free is not None and num_bytes > free:
        raise ConfigError(f"{subject} needs {gibibytes(num_bytes)}, and {gibibytes(free)} are free; {advice}")


def gibibytes(num_bytes: int) -> str:
    """A size as text."""
    if num_bytes >= 2**80:
        return "more than 10^15 GiB"
    size = num_bytes / 1024**3
    return f"{size:,.0f} GiB" if size >= 10 else f"{size:.2g} GiB"


class _SizeCheck(TorchFunctionMode):
    """Compares the size of every large tensor with the available memory before torch allocates it."""

    def __init__(self, subject: Callable[[tuple[int, ...]], str]) -> None:
        super().__init__()
        self._subject = subject

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FACTORIES and torch.device(kwargs.get("device") or "cpu").type == "cpu":
            self._check(_shape(args, kwargs), kwargs.get("dtype") or torch.get_default_dtype())
        return func(*args, **kwargs)

    def _check(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        num_bytes = math.prod(shape) * dtype.itemsize
        if num_bytes >= _CHECKED_FROM:
            sides = " × ".join(map(str, shape))
            require_memory(
                f"{self._subject(shape)}: a tensor of {sides} numbers", num_bytes, "choose a smaller size"
            )


def _shape(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, ...]:
    first = args[0] if args else kwargs.get("size", ())
    sizes = first if isinstance(first, (tuple, list)) else args
    return tuple(size for size in sizes if isinstance(size, int))


@contextlib.contextmanager
def sizes_checked(component: str, sizes: Callable[[], Mapping[str, float]]) -> Iterator[None]:
    """Context manager for the construction of a network or a data set.

    Args:
        component: the key and its value, such as `model: mine:Net`.
        sizes: returns the keys that decide its size.

    Raises:
        ConfigError: it does not fit into memory; the message names the key that the shape of the tensor
            shows, or all keys.
    """

    def subject(shape: tuple[int, ...]) -> str:
        for key, value in sizes().items():
            if shape and value == max(shape):
                return f"{key}: {value}"
        return f"{component} with " + ", ".join(f"{key} {value}" for key, value in sizes().items())

    with memory_errors_explained(lambda: subject(())), _SizeCheck(subject):
        yield


@contextlib.contextmanager
def memory_errors_explained(operation: Callable[[], str]) -> Iterator[None]:
    """Context manager that converts errors of torch about memory and sizes.

    Args:
        operation: returns the beginning of the message: the operation, with the keys that decide its size.

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
                f"{operation()} needs more memory than there is ({reason}); choose smaller sizes"
            ) from error
        if single := _SINGLE_VALUE.search(text):
            raise ConfigError(
                f"{operation()}: a norm had one value of a channel to normalise ({single[0]}); choose a "
                "larger image_size, or a batch_size that leaves no process with a single image of a batch"
            ) from error
        raise


def require_memory_for_training(
    model: torch.nn.Module, path: str, has_momentum: bool, processes: int
) -> None:
    """Check that gradients and momenta of a network fit into memory in addition to its weights.

    Args:
        model: the network, on the CPU.
        path: value of the experiment's `model`.
        has_momentum: the optimizer keeps one number for each weight.
        processes: number of processes of this machine that train it.

    Raises:
        ConfigError: they need more than is available.
    """
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    num_bytes = weights * (2 if has_momentum else 1) * processes
    if num_bytes >= _CHECKED_FROM:
        subject = f"model: training {path}, in addition to its weights,"
        require_memory(subject, num_bytes, "choose a smaller network or fewer processes")
