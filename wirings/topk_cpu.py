"""The largest of many numbers by magnitude on the CPU, in one pass over the memory.

A lower bound filters the candidates, so that few more than `count` numbers are ranked. The bound comes from
the last threshold, which moves little between two training steps, or else from a sample. It decides how long
the search takes, never its result.
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
"""Numbers looked at together: what is made of them on the way stays in the processor's cache."""
_CHUNKS = 16
"""As many chunks are listed together."""
_SAMPLE = 1 << 16
_SMALL = 1 << 17
"""From this many numbers on, a sample and a scan are faster than ranking them all."""
_DEVIATIONS = 6
"""How far below the sample's threshold its bound lies, in standard deviations of the sample's counts."""


class Largest(NamedTuple):
    """Indices of the largest, rising, and the smallest magnitude among them (infinite if there are none)."""

    indices: Indices
    threshold: float


class Threshold(NamedTuple):
    """What separates the largest numbers from the rest.

    Attributes:
        magnitude: the smallest magnitude among the largest; infinite if there are none.
        excluded: indices of numbers of this magnitude that are not among the largest, rising.
    """

    magnitude: float
    excluded: Indices


def find_threshold(values: Values, count: int, band: tuple[float, float] | None = None) -> Threshold | None:
    """The threshold of what `find_largest` finds, without the indices: faster from a tenth of all numbers on.

    Args:
        values: the numbers.
        count: 0..size.
        band: magnitudes that the threshold may lie between.

    Returns:
        None if there is a NaN.
    """
    if band is not None:
        near, magnitudes, above = _scan(values, *band)
        if np.isnan(magnitudes).any():
            return None
        if 0 < count - above <= near.size:
            return _kth_magnitude(near, magnitudes, count - above)
    found = find_largest(values, count)
    if found is None:
        return None
    ties = np.flatnonzero(np.abs(values) == found.threshold) if count else found.indices
    return Threshold(found.threshold, np.setdiff1d(ties, found.indices, assume_unique=True))


def _kth_magnitude(indices: Indices, magnitudes: Values, count: int) -> Threshold:
    rank = magnitudes.size - count
    threshold = np.partition(magnitudes, rank)[rank]
    ties = indices[magnitudes == threshold]
    return Threshold(float(threshold), ties[count - np.count_nonzero(magnitudes > threshold) :])


def find_largest(values: Values, count: int, guess: float | None = None) -> Largest | None:
    """The `count` numbers of largest magnitude; of equal ones at the border, those that come first.

    Args:
        values: the numbers.
        count: 0..size.
        guess: a magnitude that all of them may reach and few others.

    Returns:
        None if there is a NaN: it has no rank.
    """
    for bound in _bounds(values, count, guess):
        indices, magnitudes, _ = _scan(values, bound)
        if np.isnan(magnitudes).any():
            return None
        if count <= indices.size:
            chosen, threshold = _by_ranking(magnitudes, count)
            return Largest(indices[chosen], threshold)
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
    place = magnitudes.size - count
    threshold = np.partition(magnitudes, place)[place]
    indices = np.flatnonzero(magnitudes >= threshold)
    surplus = indices.size - count
    if surplus:
        ties = np.flatnonzero(magnitudes[indices] == threshold)
        indices = np.delete(indices, ties[ties.size - surplus :])
    return Largest(indices, float(threshold))


def _sampled_bound(values: Values, count: int) -> float:
    step = values.size // _SAMPLE | 1  # odd, so that columns of a matrix are seen alike
    sample = np.abs(values[::step])
    expected = count / step
    rank = min(int(expected + _DEVIATIONS * expected**0.5 + 2), sample.size)
    place = sample.size - rank
    return float(np.partition(sample, place)[place])


def _scan(values: Values, low: float, high: float | None = None) -> tuple[Indices, Values, int]:
    """Indices and magnitudes of the numbers that reach `low` but not `high`, and of every NaN; how many reach
    `high`.
    """
    lowest, highest = values.dtype.type(low), None if high is None else values.dtype.type(high)
    above = 0
    magnitudes = np.empty(min(_CHUNK, values.size), values.dtype)
    flags = np.zeros(-(-min(_CHUNKS * _CHUNK, values.size) // 8) * 8, bool)
    reached = np.empty(magnitudes.size, bool)
    indices = []
    for start in range(0, values.size, flags.size):
        part = values[start : start + flags.size]
        flags[part.size :] = False
        for begin in range(0, part.size, magnitudes.size):
            end = min(begin + magnitudes.size, part.size)
            magnitude, flag = magnitudes[: end - begin], flags[begin:end]
            np.abs(part[begin:end], out=magnitude)
            np.less(magnitude, lowest, out=flag)
            if highest is not None:
                over = np.greater_equal(magnitude, highest, out=reached[: magnitude.size])
                above += int(np.count_nonzero(over))
                np.logical_or(flag, over, out=flag)
            np.logical_not(flag, out=flag)
        indices.append(_true_indices(flags) + start)
    found = np.concatenate(indices)
    return found, np.abs(values[found]), above


def _true_indices(flags: NDArray[np.bool_]) -> Indices:
    """np.flatnonzero for few true entries: looks for groups of eight with one in it first."""
    groups = flags.view(np.int64)
    hit = np.flatnonzero(groups != 0)
    within = np.flatnonzero(groups[hit].view(bool))
    indices: Indices = (hit << 3)[within >> 3] + (within & 7)
    return indices
