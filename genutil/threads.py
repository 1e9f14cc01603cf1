"""CPU threads of a run. On a busy machine, small networks are faster with one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import nn

Threads = int | Literal["auto"]
SMALL_STEP = 4 * 10**9
"""Below this amount of work, a step is mostly overhead that threads do not reduce (benchmarks/NOTES.md)."""


def work_of_step(network: nn.Module, batch_size: int, image_size: int) -> int:
    """Weights × images × pixels: an estimate of the work of a step. It does not depend on the wiring.

    Args:
        network: the network; all weights count, in use or not.
        batch_size: images of a microbatch of this process.
        image_size: height and width, in pixels.
    """
    weights = sum(parameter.numel() for parameter in network.parameters())
    return weights * batch_size * image_size**2


def choose_threads(threads: Threads, work: int, environment: Mapping[str, str] = os.environ) -> int | None:
    """Number of threads; None: torch's default, one for each processor core.

    It depends on the arguments only, not on the load of the machine: another number of threads gives sums in
    another order, with other rounding.

    Args:
        threads: a number, or auto: one for a small step, unless $OMP_NUM_THREADS is set.
        work: of a step; see `work_of_step`.
        environment: of the process.
    """
    if threads != "auto":
        return threads
    if environment.get("OMP_NUM_THREADS"):
        return None
    return 1 if work < SMALL_STEP else None


@contextlib.contextmanager
def threads_in_use(count: int | None) -> Iterator[int]:
    """Context manager: torch uses `count` CPU threads; None: no change. Gives the number."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
