"""Density schedules: how many edges are in use at each point of a training.

A schedule goes from a first number of edges, by default all of them, to the number of the budget, which it
reaches exactly. It is a function of the training's progress alone, so that a resumed training continues it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wirings.errors import WiringError
from wirings.names import did_you_mean


@dataclass(frozen=True)
class DensitySchedule(ABC):
    """Number of edges in use over a training.

    Args:
        first_density: fraction of the potential edges at the start, 0..1. It has no effect on layers whose
            budget is larger.
        start: progress at which the schedule begins, 0..1.
        end: progress at which the budget is reached, start..1.

    Raises:
        WiringError: an argument is out of range.
    """

    first_density: float = 1.0
    start: float = 0.0
    end: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.first_density <= 1:
            raise WiringError(f"first_density must be within 0..1, got {self.first_density}")
        if not 0 <= self.start <= self.end <= 1:
            raise WiringError(
                f"start and end must be 0 <= start <= end <= 1, got start {self.start}, end {self.end}"
            )

    def num_edges(self, progress: float, budget: int, potential: int) -> int:
        """Number of edges in use.

        Args:
            progress: fraction of the training's steps that are done, 0..1.
            budget: number of edges at the end.
            potential: number of potential edges.
        """
        first = max(budget, round(self.first_density * potential))
        return budget + round(self.excess(self._within(progress)) * (first - budget))

    @abstractmethod
    def excess(self, fraction: float) -> float:
        """Edges above the budget, as a fraction of those at the start: 1 to 0.

        Args:
            fraction: of the schedule's own duration, 0..1.
        """

    def _within(self, progress: float) -> float:
        if progress >= self.end:
            return 1.0
        return 0.0 if progress <= self.start else (progress - self.start) / (self.end - self.start)


class Constant(DensitySchedule):
    """The budget from the first step."""

    def excess(self, fraction: float) -> float:
        return 0.0


class Cubic(DensitySchedule):
    """Fast at first, then ever slower. Source: Zhu, Gupta, "To prune, or not to prune", 2017."""

    def excess(self, fraction: float) -> float:
        return (1 - fraction) ** 3


@dataclass(frozen=True)
class Steps(DensitySchedule):
    """Equal drops at equal distances after `start`, the last of them at `end`.

    Args:
        drops: number of them, at least 1.
    """

    drops: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.drops < 1:
            raise WiringError(f"drops must be at least 1, got {self.drops}")

    def excess(self, fraction: float) -> float:
        return 1 - math.floor(fraction * self.drops) / self.drops


@dataclass(frozen=True)
class Cyclic(DensitySchedule):
    """Waves of a cosine from the first density to the budget and back; the last one ends at the budget.

    Args:
        cycles: number of times that the budget is reached, at least 1.
    """

    cycles: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cycles < 1:
            raise WiringError(f"cycles must be at least 1, got {self.cycles}")

    def excess(self, fraction: float) -> float:
        return (1 + math.cos(math.pi * (2 * self.cycles - 1) * fraction)) / 2


DENSITY_SCHEDULES: Mapping[str, type[DensitySchedule]] = {
    "constant": Constant,
    "cubic": Cubic,
    "steps": Steps,
    "cyclic": Cyclic,
}


def find_density_schedule(schedule: str, **options: Any) -> DensitySchedule:
    """A schedule by its name.

    Args:
        schedule: a name of DENSITY_SCHEDULES.
        options: its arguments.

    Raises:
        WiringError: there is no such schedule, it has no such option, or its value is out of range.
    """
    if schedule not in DENSITY_SCHEDULES:
        hint = did_you_mean(schedule, DENSITY_SCHEDULES)
        raise WiringError(f"schedule must be one of {', '.join(DENSITY_SCHEDULES)}, got {schedule}{hint}")
    accepted = list(DENSITY_SCHEDULES[schedule].__dataclass_fields__)
    for name in options:
        if name not in accepted:
            hint = did_you_mean(name, accepted)
            raise WiringError(
                f"density schedule {schedule} has no option {name}; it has {', '.join(accepted)}{hint}"
            )
    return DENSITY_SCHEDULES[schedule](**options)
