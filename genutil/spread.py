"""Mean and standard deviation over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n − 1); None for a single value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def spread(values: Sequence[float], digits: int = 2, unit: str = "") -> str:
    """`mean ± standard deviation`; the value itself if there is one, "" if there is none."""
    if not values:
        return ""
    numbers = [number for number in mean_and_std(values) if number is not None]
    return " ± ".join(f"{number:,.{digits}f}{unit}" for number in numbers)
