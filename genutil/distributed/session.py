"""The frame of a run: signals, choice of algorithms, the other processes, what is told at a failure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

import torch

from genutil.devices import algorithms
from genutil.distributed.failures import error_to_report
from genutil.distributed.rank_info import RankInfo
from genutil.distributed.world import World, join_world
from genutil.errors import ReportedByOtherRank
from genutil.signals import Interrupted, StopRequest

_Result = TypeVar("_Result")


def run_distributed(
    work: Callable[[World, StopRequest], _Result],
    rank_info: RankInfo | None,
    device: torch.device,
    timeout: float,
    deterministic: bool = False,
) -> _Result:
    """`work(world, stop)`, alone or as one of the processes of a run.

    Args:
        work: what each process does; `stop` notes signals once it is entered.
        rank_info: of this process; None: it is alone.
        device: where it calculates.
        timeout: see join_world.
        deterministic: see genutil.devices.algorithms.

    Raises:
        Exception: what `work` raised, or what another process has to tell of.
        RunError: a process was lost.
        ReportedByOtherRank: another process of the run tells why it ends.
        Interrupted: a signal ended the work.
    """
    several = rank_info is not None and rank_info.size > 1
    stop = StopRequest(patient=several)
    # Of several processes, each notes signals from the start: what happened to another must still be told.
    with (
        stop if several else contextlib.nullcontext(),
        algorithms(deterministic),
        join_world(rank_info, device, timeout) as world,
    ):
        try:
            world.barrier()  # until each has reached all others: from here on a failure can be told to them
            return work(world, stop)
        except Interrupted as stopped:
            if world.is_main:
                raise
            raise ReportedByOtherRank(128 + stopped.signum) from stopped
        except Exception as error:
            told = error_to_report(world, error)
            if told is error:
                raise
            raise told from error
