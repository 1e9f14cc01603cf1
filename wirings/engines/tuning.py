"""Selection of the fastest of several equivalent implementations, measured on this GPU."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

_log = logging.getLogger(__name__)
Option = TypeVar("Option")

BUDGET = 0.06
"""Seconds of a measurement; a MobileNet graph needs about 15 for each size of its maps."""
_QUEUED = 1_500_000
"""Cycles that the device waits before the measured calls, while the host launches all of them."""


def fastest(options: Sequence[Option], run: Callable[[Option], object], budget: float = BUDGET) -> Option:
    """The fastest option. One that cannot run, such as one with too large a tile, is skipped.

    Each option runs once before it is measured, since this compiles its kernels.

    Args:
        options: the most likely one first.
        run: the measured function of an option; it may be repeated.
        budget: seconds after which no further option is measured.

    Raises:
        Exception: no option can run; that of the first one.
    """
    timed: list[tuple[float, Option]] = []
    failed: list[Exception] = []
    spent = 0.0
    for option in options:
        try:
            run(option)
        except Exception as error:  # errors of Triton and of compilers have no common type
            _log.warning("a kernel that cannot run here is skipped: %s", error)
            failed.append(error)
            continue
        torch.cuda.synchronize()
        start = time.perf_counter()
        timed.append((milliseconds(lambda option=option: run(option)), option))  # type: ignore[misc]
        spent += time.perf_counter() - start
        if spent > budget:
            break
    if not timed:
        raise failed[0]
    return min(timed, key=lambda pair: pair[0])[1]


def milliseconds(run: Callable[[], object], repeats: int = 5) -> float:
    """Time of `repeats` calls on the current GPU, without that of the host, which launches them before."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda._sleep(_QUEUED)  # type: ignore[no-untyped-call]
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def can_measure(device: torch.device) -> bool:
    """Whether this is a GPU that can be synchronized with: not while a CUDA graph is captured."""
    return device.type == "cuda" and not torch.cuda.is_current_stream_capturing()
