"""The largest magnitudes of many numbers, in one pass over the memory.

A sample tells between which two magnitudes the threshold lies, most likely. What lies above is chosen at
once, and only the few entries in between are ranked. The sample decides how long it takes, never the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[Any]
"""Floating-point numbers seen as signed integers of their width."""

_CHUNK = 1 << 16
"""Entries looked at together: what is made of them on the way stays in the processor's cache."""
_SAMPLE = 1 << 16
_SMALL = 1 << 17
_DEVIATIONS = 6
"""Width of the bracket to either side, in standard deviations of the sample's counts."""


def magnitudes(bits: Bits) -> Bits:
    """The bits without their sign: as integers, they order like the magnitudes they encode."""
    return bits & np.iinfo(bits.dtype).max


def largest_by_ranking(bits: Bits, count: int) -> tuple[NDArray[np.bool_], int]:
    """Mark the `count` largest magnitudes; of equal ones at the border, those of lowest index.

    Returns:
        The mask, and the largest magnitude of all.
    """
    magnitude = magnitudes(bits)
    ranked = np.partition(magnitude, magnitude.size - count)
    rest, top = ranked[: magnitude.size - count], ranked[magnitude.size - count :]
    threshold = top[0]
    mask = magnitude >= threshold
    if rest.size and rest.max() == threshold:
        surplus = int(np.count_nonzero(rest == threshold))
        mask[np.flatnonzero(magnitude == threshold)[-surplus:]] = False
    return mask, int(top.max())


def largest_by_bracket(bits: Bits, count: int) -> tuple[NDArray[np.bool_], int] | None:
    """`largest_by_ranking`, faster; None for few entries, or where the bracket misses the threshold."""
    if bits.size < _SMALL or count > bits.size // 4:
        return None
    lower, upper = _bracket(bits, count)
    mask, between, largest = _split(bits, lower, upper)
    missing = count - int(np.count_nonzero(mask))
    if not 0 <= missing <= between.size:
        return None
    if missing:
        chosen, _ = largest_by_ranking(bits[between], missing)
        mask[between[chosen]] = True
    return mask, largest


def _bracket(bits: Bits, count: int) -> tuple[int, int]:
    """Two magnitudes with the threshold between them, most likely."""
    step = bits.size // _SAMPLE | 1  # odd, so that columns of a matrix are seen alike
    sample = magnitudes(bits[::step])
    expected = count / step
    margin = _DEVIATIONS * expected**0.5 + 2
    low_rank = min(int(expected + margin), sample.size)
    high_rank = int(expected - margin)
    upper = _of_rank(sample, high_rank) if high_rank > 0 else int(np.iinfo(bits.dtype).max)
    return _of_rank(sample, low_rank), upper


def _of_rank(values: Bits, rank: int) -> int:
    """The `rank`-th largest, from 1. One rank at a time: for several, NumPy uses no vector instructions."""
    place = values.size - rank
    return int(np.partition(values, place)[place])


def _split(bits: Bits, lower: int, upper: int) -> tuple[NDArray[np.bool_], NDArray[np.int64], int]:
    """(mask of what is above `upper`, places from `lower` to `upper`, largest magnitude)."""
    above, reached = np.empty(bits.size, bool), np.empty(_CHUNK, bool)
    chunk = np.empty(_CHUNK, bits.dtype)
    without_sign, largest, between = np.iinfo(bits.dtype).max, 0, []
    for start in range(0, bits.size, _CHUNK):
        size = min(_CHUNK, bits.size - start)
        magnitude, inside, mask = chunk[:size], reached[:size], above[start : start + size]
        np.bitwise_and(bits[start : start + size], without_sign, out=magnitude)
        np.greater(magnitude, upper, out=mask)
        np.greater_equal(magnitude, lower, out=inside)
        np.not_equal(inside, mask, out=inside)
        between.append(np.flatnonzero(inside) + start)
        largest = max(largest, int(magnitude.max()))
    return above, np.concatenate(between), largest
