"""The frame of a run: signals, choice of algorithms, the other processes, what is told at a failure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

import torch

from genutil.devices import algorithms
from genutil.distributed.failures import what_to_tell
from genutil.distributed.rank_info import Place
from genutil.distributed.world import World, join_world
from genutil.errors import ToldByAnother
from genutil.signals import Interrupted, StopRequest

_Result = TypeVar("_Result")


def run_in_world(
    work: Callable[[World, StopRequest], _Result],
    place: Place | None,
    device: torch.device,
    timeout: float,
    deterministic: bool = False,
) -> _Result:
    """`work(world, stop)`, alone or as one of the processes of a run.

    Args:
        work: what each process does; `stop` notes signals once it is entered.
        place: of this process; None: it is alone.
        device: where it calculates.
        timeout: see join_world.
        deterministic: see genutil.devices.algorithms.

    Raises:
        Exception: what `work` raised, or what another process has to tell of.
        RunError: a process was lost.
        ToldByAnother: another process of the run tells why it ends.
        Interrupted: a signal ended the work.
    """
    several = place is not None and place.size > 1
    stop = StopRequest(patient=several)
    # Of several processes, each notes signals from the start: what happened to another must still be told.
    with (
        stop if several else contextlib.nullcontext(),
        algorithms(deterministic),
        join_world(place, device, timeout) as world,
    ):
        try:
            world.wait()  # until each has reached all others: from here on a failure can be told to them
            return work(world, stop)
        except Interrupted as stopped:
            if world.is_main:
                raise
            raise ToldByAnother(128 + stopped.signum) from stopped
        except Exception as error:
            told = what_to_tell(world, error)
            if told is error:
                raise
            raise told from error
