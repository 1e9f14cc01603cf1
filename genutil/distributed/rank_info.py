"""Rank of this process and the shares of batches; imports no torch, since devices are selected later."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from genutil.exceptions import ConfigError


@dataclass(frozen=True)
class RankInfo:
    """Rank of a process, as its launcher sets it.

    Attributes:
        rank, size: rank among all processes, and their number (torch's world size).
        local_rank, local_size: the same on this machine.
        restarts: how often the launcher has restarted the processes after a failure.
        restarts_left: how often it would do so again.
        run_id: the launcher's name of the run; the same after a restart.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    restarts: int = 0
    restarts_left: int = 0
    run_id: str = ""


def rank_info_from_env(environment: Mapping[str, str] = os.environ) -> RankInfo | None:
    """Rank of this process from the variables of its launcher; None: no launcher started it.

    Raises:
        ConfigError: a variable is not a number, or they contradict each other.
    """
    if not {"RANK", "WORLD_SIZE"} <= environment.keys():
        return None
    # torchrun may give every run the same name; the launcher's process id makes it unique.
    launcher = f"{environment.get('TORCHELASTIC_RUN_ID', '')}-{os.uname().nodename}-{os.getppid()}"
    restarts = _number(environment, "TORCHELASTIC_RESTART_COUNT", 0)
    rank_info = RankInfo(
        rank=_number(environment, "RANK"),
        size=_number(environment, "WORLD_SIZE"),
        local_rank=_number(environment, "LOCAL_RANK", 0),
        local_size=_number(environment, "LOCAL_WORLD_SIZE", 1),
        restarts=restarts,
        restarts_left=_number(environment, "TORCHELASTIC_MAX_RESTARTS", 0) - restarts,
        run_id=launcher,
    )
    _check_below("RANK", rank_info.rank, "WORLD_SIZE", rank_info.size)
    if "LOCAL_WORLD_SIZE" in environment:
        _check_below("LOCAL_RANK", rank_info.local_rank, "LOCAL_WORLD_SIZE", rank_info.local_size)
    return rank_info


_ADVICE = "a launcher such as torchrun sets it; unset RANK and WORLD_SIZE to run one process"


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name)
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ConfigError(f"{name}: must be a whole number, got {text!r} in the environment; {_ADVICE}")
    return int(text)


def _check_below(rank_name: str, rank: int, size_name: str, size: int) -> None:
    if not rank < size:
        raise ConfigError(f"{rank_name}: must be less than {size_name}, got {rank} and {size}; {_ADVICE}")


def check_batch_size(batch_size: int, size: int, accumulate: int) -> None:
    """Check that a batch can be split evenly.

    Raises:
        ConfigError: it cannot.
    """
    parts = size * accumulate
    if batch_size % parts:
        below, above = batch_size // parts * parts, (batch_size // parts + 1) * parts
        near = f"{below} or {above}" if below else f"{above}"
        raise ConfigError(
            f"batch_size: {batch_size} images cannot be split evenly among {size} processes with "
            f"accumulate {accumulate}; it must be a multiple of {parts}, such as {near}"
        )


def shard_slice(count: int, rank: int, size: int) -> slice:
    """Slice of `count` images that belongs to `rank`. Sizes differ by one at most, the larger ones first."""
    quotient, remainder = divmod(count, size)
    start = rank * quotient + min(rank, remainder)
    return slice(start, start + quotient + (rank < remainder))
