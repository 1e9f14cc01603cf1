"""The largest of many numbers by magnitude, found in one pass over the memory.

A lower bound leaves little more than the numbers wanted, most likely, and only what reaches it is ranked. The
bound comes from the last threshold, which moves little between two training steps, or else from a sample. It
decides how long the search takes, never what is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
"""Numbers of type float32 or float64, one-dimensional."""
Places = NDArray[np.int64]

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
    """Places of the largest, rising, and the smallest magnitude among them (infinite if there are none)."""

    places: Places
    threshold: float


class Cut(NamedTuple):
    """The border between the largest numbers and the rest.

    Attributes:
        threshold: the smallest magnitude among the largest; infinite if there are none.
        excluded: places of other numbers of this magnitude, rising.
    """

    threshold: float
    excluded: Places


def find_cut(values: Values, count: int, band: tuple[float, float] | None = None) -> Cut | None:
    """The border of what `find_largest` finds, without listing it: faster where a tenth or more is wanted.

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
            return _border(near, magnitudes, count - above)
    found = find_largest(values, count)
    if found is None:
        return None
    ties = np.flatnonzero(np.abs(values) == found.threshold) if count else found.places
    return Cut(found.threshold, np.setdiff1d(ties, found.places, assume_unique=True))


def _border(places: Places, magnitudes: Values, count: int) -> Cut:
    rank = magnitudes.size - count
    threshold = np.partition(magnitudes, rank)[rank]
    ties = places[magnitudes == threshold]
    return Cut(float(threshold), ties[count - np.count_nonzero(magnitudes > threshold) :])


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
        places, magnitudes, _ = _scan(values, bound)
        if np.isnan(magnitudes).any():
            return None
        if count <= places.size:
            chosen, threshold = _by_ranking(magnitudes, count)
            return Largest(places[chosen], threshold)
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
    places = np.flatnonzero(magnitudes >= threshold)
    surplus = places.size - count
    if surplus:
        ties = np.flatnonzero(magnitudes[places] == threshold)
        places = np.delete(places, ties[ties.size - surplus :])
    return Largest(places, float(threshold))


def _sampled_bound(values: Values, count: int) -> float:
    step = values.size // _SAMPLE | 1  # odd, so that columns of a matrix are seen alike
    sample = np.abs(values[::step])
    expected = count / step
    rank = min(int(expected + _DEVIATIONS * expected**0.5 + 2), sample.size)
    place = sample.size - rank
    return float(np.partition(sample, place)[place])


def _scan(values: Values, low: float, high: float | None = None) -> tuple[Places, Values, int]:
    """Places and magnitudes of the numbers that reach `low` but not `high`, and of every NaN; how many reach
    `high`.
    """
    lowest, highest = values.dtype.type(low), None if high is None else values.dtype.type(high)
    above = 0
    magnitudes = np.empty(min(_CHUNK, values.size), values.dtype)
    marks = np.zeros(-(-min(_CHUNKS * _CHUNK, values.size) // 8) * 8, bool)
    reached = np.empty(magnitudes.size, bool)
    places = []
    for start in range(0, values.size, marks.size):
        part = values[start : start + marks.size]
        marks[part.size :] = False
        for begin in range(0, part.size, magnitudes.size):
            end = min(begin + magnitudes.size, part.size)
            magnitude, mark = magnitudes[: end - begin], marks[begin:end]
            np.abs(part[begin:end], out=magnitude)
            np.less(magnitude, lowest, out=mark)
            if highest is not None:
                over = np.greater_equal(magnitude, highest, out=reached[: magnitude.size])
                above += int(np.count_nonzero(over))
                np.logical_or(mark, over, out=mark)
            np.logical_not(mark, out=mark)
        places.append(_true_places(marks) + start)
    found = np.concatenate(places)
    return found, np.abs(values[found]), above


def _true_places(marks: NDArray[np.bool_]) -> Places:
    """np.flatnonzero for few true entries: looks for groups of eight with one in it first."""
    groups = marks.view(np.int64)
    hit = np.flatnonzero(groups != 0)
    within = np.flatnonzero(groups[hit].view(bool))
    places: Places = (hit << 3)[within >> 3] + (within & 7)
    return places
