"""Distributed session: runs a function in one or several processes, with signals and error reports."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

import torch

from genutil.devices import algorithms
from genutil.distributed.failures import error_to_report
from genutil.distributed.rank_info import RankInfo
from genutil.distributed.world import World, join_world
from genutil.exceptions import ReportedByOtherRank
from genutil.signals import Interrupted, StopRequest

_Result = TypeVar("_Result")


def run_distributed(
    work: Callable[[World, StopRequest], _Result],
    rank_info: RankInfo | None,
    device: torch.device,
    timeout: float,
    deterministic: bool = False,
) -> _Result:
    """Call `work(world, stop)`, in a single process or in one of several.

    Args:
        work: the function. `stop` records signals only within its context, which `work` enters.
        rank_info: of this process; None: it is the only one.
        device: of this process.
        timeout: see join_world.
        deterministic: see genutil.devices.algorithms.

    Raises:
        Exception: what `work` raised.
        RunError: a process was lost.
        ReportedByOtherRank: another process reports why the run ends.
        Interrupted: a signal ended the work.
    """
    several = rank_info is not None and rank_info.size > 1
    stop = StopRequest(patient=several)
    # Several processes record signals from the start: an error of another one must still be reported.
    with (
        stop if several else contextlib.nullcontext(),
        algorithms(deterministic),
        join_world(rank_info, device, timeout) as world,
    ):
        try:
            world.barrier()  # connects all processes, so that each of them notices a failure from here on
            return work(world, stop)
        except Interrupted as stopped:
            if world.is_main:
                raise
            raise ReportedByOtherRank(128 + stopped.signum) from stopped
        except Exception as error:
            reported = error_to_report(world, error)
            if reported is error:
                raise
            raise reported from error
