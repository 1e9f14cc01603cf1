"""Choice of the fastest of several ways to do the same, measured on this GPU."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

log = logging.getLogger(__name__)
Way = TypeVar("Way")

BUDGET = 0.06
"""Seconds that a choice may measure for; a MobileNet graph makes some 15 for each size of its maps."""
_QUEUED = 1_500_000
"""Cycles that the device waits before it runs what is measured: meanwhile the host launches all of it."""


def fastest(ways: Sequence[Way], run: Callable[[Way], object], budget: float = BUDGET) -> Way:
    """The way that took least time. A way that cannot run, such as one with too large a tile, is left out.

    Each way runs once before the clock of `budget` starts, since this compiles its kernels.

    Args:
        ways: the most likely one first.
        run: what is measured; it may be repeated.
        budget: seconds after which no further way is measured.

    Raises:
        Exception: no way can run; that of the first one.
    """
    timed: list[tuple[float, Way]] = []
    failed: list[Exception] = []
    spent = 0.0
    for way in ways:
        try:
            run(way)
        except Exception as error:  # what Triton and the compilers that it needs raise has no common type
            log.warning("a kernel that cannot run here is left out: %s", error)
            failed.append(error)
            continue
        torch.cuda.synchronize()
        start = time.perf_counter()
        timed.append((milliseconds(lambda way=way: run(way)), way))  # type: ignore[misc]
        spent += time.perf_counter() - start
        if spent > budget:
            break
    if not timed:
        raise failed[0]
    return min(timed, key=lambda pair: pair[0])[1]


def milliseconds(run: Callable[[], object], repeats: int = 5) -> float:
    """Time of `repeats` calls on the current GPU; the host, which launches them beforehand, is left out."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda._sleep(_QUEUED)  # type: ignore[no-untyped-call]
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def can_measure(device: torch.device) -> bool:
    """Whether this is a GPU that may be waited for: not while a CUDA graph is captured."""
    return device.type == "cuda" and not torch.cuda.is_current_stream_capturing()
