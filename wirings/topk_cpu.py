"""The largest of many numbers by magnitude on the CPU, in one pass over the memory.

A lower bound filters the candidates, so that few more than `count` numbers are ranked. The bound comes from
the last threshold, which changes little between two training steps, or from a sample. It affects the time of
the search, not its result.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
"""Numbers of type float32 or float64, one-dimensional."""
Indices = NDArray[np.int64]

_CHUNK = 1 << 16
"""Numbers scanned together, so that intermediate arrays stay in the cache."""
_CHUNKS = 16
"""Chunks whose indices are listed together."""
_SAMPLE = 1 << 16
_SMALL = 1 << 17
"""Size above which a sample and a scan are faster than ranking all numbers."""
_DEVIATIONS = 6
"""Distance of the bound from the sample's threshold, in standard deviations of the sample's counts."""


class Largest(NamedTuple):
    """Ascending indices of the largest, and the smallest magnitude among them; infinite if there are none."""

    indices: Indices
    threshold: float


class Threshold(NamedTuple):
    """Threshold between the largest numbers and the rest.

    Attributes:
        magnitude: the smallest magnitude among the largest; infinite if there are none.
        excluded: ascending indices of numbers of this magnitude that are not among the largest.
    """

    magnitude: float
    excluded: Indices


def find_threshold(values: Values, count: int, band: tuple[float, float] | None = None) -> Threshold | None:
    """The threshold of `find_largest`, without the indices: faster for at least a tenth of the numbers.

    Args:
        values: the numbers.
        count: 0..size.
        band: lower and upper guess of the threshold.

    Returns:
        None if there is a NaN.
    """
    if band is not None:
        near, magnitudes, above = _scan(values, *band)
        if np.isnan(magnitudes).any():
            return None
        if 0 < count - above <= near.size:
            return _kth_magnitude(near, magnitudes, count - above)
    largest = find_largest(values, count)
    if largest is None:
        return None
    ties = np.flatnonzero(np.abs(values) == largest.threshold) if count else largest.indices
    return Threshold(largest.threshold, np.setdiff1d(ties, largest.indices, assume_unique=True))


def _kth_magnitude(indices: Indices, magnitudes: Values, count: int) -> Threshold:
    rank = magnitudes.size - count
    threshold = np.partition(magnitudes, rank)[rank]
    ties = indices[magnitudes == threshold]
    return Threshold(float(threshold), ties[count - np.count_nonzero(magnitudes > threshold) :])


def find_largest(values: Values, count: int, guess: float | None = None) -> Largest | None:
    """The `count` numbers of largest magnitude; of equal ones at the threshold, the first ones.

    Args:
        values: the numbers.
        count: 0..size.
        guess: lower guess of the threshold.

    Returns:
        None if there is a NaN: it has no rank.
    """
    for bound in _bounds(values, count, guess):
        indices, magnitudes, _ = _scan(values, bound)
        if np.isnan(magnitudes).any():
            return None
        if count <= indices.size:
            selected, threshold = _by_ranking(magnitudes, count)
            return Largest(indices[selected], threshold)
    magnitudes = np.abs(values)
    if np.isnan(magnitudes).any():
        return None
    return _by_ranking(magnitudes, count)


def _bounds(values: Values, count: int, guess: float | None) -> Iterator[float]:
    if guess is not None:
        yield guess
    if values.size >= _SMALL and count:
        yield _sampled_bound(values, count)


def _by_ranking(magnitudes: Values, count: int) -> Largest:
    if not count:
        return Largest(np.empty(0, np.int64), float("inf"))
    rank = magnitudes.size - count
    threshold = np.partition(magnitudes, rank)[rank]
    indices = np.flatnonzero(magnitudes >= threshold)
    surplus = indices.size - count
    if surplus:
        ties = np.flatnonzero(magnitudes[indices] == threshold)
        indices = np.delete(indices, ties[ties.size - surplus :])
    return Largest(indices, float(threshold))


def _sampled_bound(values: Values, count: int) -> float:
    step = values.size // _SAMPLE | 1  # odd, so that all columns of a matrix are sampled
    sample = np.abs(values[::step])
    expected = count / step
    rank = min(int(expected + _DEVIATIONS * expected**0.5 + 2), sample.size)
    index = sample.size - rank
    return float(np.partition(sample, index)[index])


def _scan(values: Values, low: float, high: float | None = None) -> tuple[Indices, Values, int]:
    """Indices and magnitudes of the numbers that reach `low` but not `high`, and of every NaN; number of
    those that reach `high`.
    """
    lowest, highest = values.dtype.type(low), None if high is None else values.dtype.type(high)
    above = 0
    magnitudes = np.empty(min(_CHUNK, values.size), values.dtype)
    flags = np.zeros(-(-min(_CHUNKS * _CHUNK, values.size) // 8) * 8, bool)
    reached = np.empty(magnitudes.size, bool)
    indices = []
    for start in range(0, values.size, flags.size):
        chunks = values[start : start + flags.size]
        flags[chunks.size :] = False
        for begin in range(0, chunks.size, magnitudes.size):
            end = min(begin + magnitudes.size, chunks.size)
            magnitude, flag = magnitudes[: end - begin], flags[begin:end]
            np.abs(chunks[begin:end], out=magnitude)
            np.less(magnitude, lowest, out=flag)
            if highest is not None:
                over = np.greater_equal(magnitude, highest, out=reached[: magnitude.size])
                above += int(np.count_nonzero(over))
                np.logical_or(flag, over, out=flag)
            np.logical_not(flag, out=flag)
        indices.append(_true_indices(flags) + start)
    all_indices = np.concatenate(indices)
    return all_indices, np.abs(values[all_indices]), above


def _true_indices(flags: NDArray[np.bool_]) -> Indices:
    """np.flatnonzero for few true entries: searches groups of eight first."""
    groups = flags.view(np.int64)
    nonzero = np.flatnonzero(groups != 0)
    within = np.flatnonzero(groups[nonzero].view(bool))
    indices: Indices = (nonzero << 3)[within >> 3] + (within & 7)
    return indices
