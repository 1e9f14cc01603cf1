"""Which device an experiment runs on. `select_gpus` must be called before torch is imported."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from genutil.distributed.rank_info import RankInfo
from genutil.errors import ConfigError, ReportedByOtherRank

if TYPE_CHECKING:
    import torch

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_log = logging.getLogger(__name__)


def select_gpus(gpus: Sequence[int] | None, environment: MutableMapping[str, str] = os.environ) -> None:
    """Let CUDA see the chosen devices only. A list that the environment sets is narrowed, not replaced.

    Raises:
        ConfigError: a device that the environment does not offer.
    """
    if gpus is None:
        return
    offered = environment.get(_VISIBLE)
    chosen = [str(gpu) for gpu in gpus]
    if offered is not None and gpus:
        names = [name.strip() for name in offered.split(",") if name.strip()]
        if max(gpus) >= len(names):
            raise ConfigError(
                f"gpus: {max(gpus)} is not among the {len(names)} devices of {_VISIBLE}={offered}"
            )
        chosen = [names[gpu] for gpu in gpus]
    environment[_VISIBLE] = ",".join(chosen)


def choose_device(gpus: Sequence[int] | None, processes: int | None, rank_info: RankInfo) -> torch.device:
    """The device of this process: of the selected GPUs the one with its number on this machine, or the CPU.

    Warns where GPUs were asked for in vain.

    Args:
        gpus: as selected; None: all.
        processes: processes to run on the CPU, if that was asked for.
        rank_info: which process this is.

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
            "GPUs; start fewer processes, or offer more GPUs"
        )
    return torch.device("cuda", rank_info.local_rank)


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_determinism(environment: MutableMapping[str, str] = os.environ) -> None:
    """What matrix products on GPUs need to repeat; must be set before the first of them."""
    environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextlib.contextmanager
def algorithms(deterministic: bool) -> Iterator[None]:
    """Within it, torch's algorithms give the same bits in each run, or else those are taken that are fastest
    for the sizes at hand, which differ in rounding. An operation that cannot repeat is an error then.
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


def _use_deterministic(wanted: bool) -> None:
    """torch loads its compiler to change this, which takes a second: only where it is a change."""
    import torch

    if torch.are_deterministic_algorithms_enabled() != wanted:
        torch.use_deterministic_algorithms(wanted)
