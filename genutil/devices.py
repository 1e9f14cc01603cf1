"""Devices of an experiment. `select_gpus` must be called before torch is imported."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from genutil.distributed.rank_info import RankInfo
from genutil.exceptions import ConfigError, ReportedByOtherRank

if TYPE_CHECKING:
    import torch

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_log = logging.getLogger(__name__)


def select_gpus(gpus: Sequence[int] | None, environment: MutableMapping[str, str] = os.environ) -> None:
    """Restrict CUDA_VISIBLE_DEVICES to the selected devices. An existing list is narrowed, not replaced.

    Raises:
        ConfigError: a device is not in the existing list.
    """
    if gpus is None:
        return
    visible = environment.get(_VISIBLE)
    selected = [str(gpu) for gpu in gpus]
    if visible is not None and gpus:
        names = [name.strip() for name in visible.split(",") if name.strip()]
        if max(gpus) >= len(names):
            raise ConfigError(
                f"gpus: {max(gpus)} is not among the {len(names)} devices of {_VISIBLE}={visible}"
            )
        selected = [names[gpu] for gpu in gpus]
    environment[_VISIBLE] = ",".join(selected)


def choose_device(gpus: Sequence[int] | None, processes: int | None, rank_info: RankInfo) -> torch.device:
    """Device of this process: the selected GPU with the process's local rank, or the CPU.

    Warns if GPUs are selected and none is available.

    Args:
        gpus: the selected ones; None: all.
        processes: the key `processes`: None, or a number of processes on the CPU.
        rank_info: rank of this process.

    Raises:
        ConfigError: there are more processes than GPUs.
        ReportedByOtherRank: the same, on all processes of this machine but the first.
    """
    import torch

    if processes:
        return torch.device("cpu")
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and not available:
        _log.warning("--gpus %s: no CUDA device is available; running on the CPU", " ".join(map(str, gpus)))
    if not available or gpus == []:
        return torch.device("cpu")
    if rank_info.local_size > available:
        if rank_info.local_rank:
            raise ReportedByOtherRank(2)
        raise ConfigError(
            f"gpus: {rank_info.local_size} processes were started on this machine, but it has {available} "
            "GPUs; start fewer processes, or select more GPUs"
        )
    return torch.device("cuda", rank_info.local_rank)


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_determinism(environment: MutableMapping[str, str] = os.environ) -> None:
    """Environment variable for deterministic matrix products on GPUs; to be set before the first of them."""
    environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextlib.contextmanager
def algorithms(deterministic: bool) -> Iterator[None]:
    """Context manager: torch uses deterministic algorithms, or else the fastest ones for the current sizes.

    With `deterministic`, an operation that has no deterministic algorithm raises an error.
    """
    import torch

    cudnn, fill = torch.backends.cudnn, cast(Any, torch.utils.deterministic)
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, fill.fill_uninitialized_memory
    _use_deterministic(deterministic)
    cudnn.benchmark = not deterministic
    fill.fill_uninitialized_memory = False  # nothing here reads memory before it is written
    try:
        yield
    finally:
        _use_deterministic(before[0])
        cudnn.benchmark, fill.fill_uninitialized_memory = before[1:]


def _use_deterministic(deterministic: bool) -> None:
    """Set the flag only if it changes, since torch loads its compiler to set it, which takes a second."""
    import torch

    if torch.are_deterministic_algorithms_enabled() != deterministic:
        torch.use_deterministic_algorithms(deterministic)
