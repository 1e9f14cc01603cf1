"""How many CPU threads a run calculates with. On a busy machine, small networks are faster with one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import nn

Threads = int | Literal["auto"]
SMALL_STEP = 4 * 10**9
"""Below this work a step is mostly overhead, which threads do not share: see benchmarks/NOTES.md."""


def work_of_step(network: nn.Module, batch_size: int, image_size: int) -> int:
    """Weights × images × pixels of an image: the size of a step. Wiring and training do not change it.

    Args:
        network: all its weights count, in use or not.
        batch_size: images that this process takes at once.
        image_size: height and width, in pixels.
    """
    weights = sum(parameter.numel() for parameter in network.parameters())
    return weights * batch_size * image_size**2


def choose_threads(threads: Threads, work: int, environment: Mapping[str, str] = os.environ) -> int | None:
    """The number of threads; None: as many as torch takes by itself, one for each processor core.

    It is a function of the arguments alone, and not of how busy the machine is: another number of threads
    gives sums in another order, and so other last bits.

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
    """Within it, torch has so many CPU threads; None: as many as before. Gives the number."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
