"""Description of the machine, and timing of alternatives."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from genutil.runs.run_folder import commit, environment, processor


@dataclass(frozen=True)
class Spread:
    """Seconds of repeated runs: smallest, median, largest."""

    low: float
    median: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{1e3 * self.median:.2f} ms ({1e3 * self.low:.2f} to {1e3 * self.high:.2f})"

    def numbers(self) -> dict[str, float]:
        """The numbers by name, in seconds."""
        return {"min": self.low, "median": self.median, "max": self.high, "rounds": self.count}


def describe() -> dict[str, str]:
    """Processor, threads, versions and commit, by name."""
    versions = environment()["versions"]
    return {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "commit": commit() or "unknown",
    }


def measure(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 1,
    between: Callable[[], object] | None = None,
    pause_first: bool = False,
) -> dict[str, Spread]:
    """Time the candidates alternately, round by round, so that other load affects all of them.

    Args:
        candidates: functions by name.
        rounds: number of timed calls of each.
        warm_up: number of calls of each before.
        between: called before each round, not timed.
        pause_first: before each timed call, pause until the threads of the previous candidate sleep, and call
            the candidate once to wake its own.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(warm_up + rounds):
        if between is not None:
            between()
        for name, run in candidates.items():
            if pause_first:
                time.sleep(0.02)
                run()
            started = time.perf_counter()
            run()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return {
        name: Spread(min(times), statistics.median(times), max(times), rounds)
        for name, times in seconds.items()
    }
