"""Exact selection of the entries of largest magnitude, and random selection by scores.

Source: Wortsman, Farhadi, Rastegari, "Discovering Neural Wirings", NeurIPS 2019, section 2.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, library

from wirings import radix
from wirings.errors import NotFiniteError, WiringError
from wirings.selection import EdgeSelection, straight_through
from wirings.topk_cpu import find_largest, find_threshold


def num_kept(numel: int, prune_rate: float) -> int:
    """Number of edges in use of `numel` potential edges: numel − int(prune_rate · numel).

    Raises:
        WiringError: `prune_rate` is not within 0..1.
    """
    if not 0 <= prune_rate <= 1:
        raise WiringError(f"prune_rate must be within 0..1, got {prune_rate}")
    return numel - int(prune_rate * numel)


def top_mask(weight: Tensor, count: int) -> Tensor:
    """Mask of the `count` entries of largest magnitude; of equal ones, those of lowest index.

    Args:
        weight: any shape, any floating type, any device.
        count: 0..numel.

    Returns:
        Boolean mask of the same shape with exactly `count` true entries; it shares no memory with `weight`.
        On a GPU there is no synchronization; a NaN ranks highest there, so that it reaches the output.

    Raises:
        WiringError: `count` is out of range.
        NotFiniteError: an entry is NaN; it has no rank (not raised on a GPU).
    """
    return Selector(count).select(weight).mask()


def top_mask_by_row(weight: Tensor, count: int) -> Tensor:
    """`top_mask` of each row.

    Args:
        weight: (rows, …), any floating type, any device.
        count: of each row.

    Raises:
        WiringError, NotFiniteError: as in `top_mask`.
    """
    rows = weight.detach().flatten(1)
    _check_count(count, rows[:1])
    if torch.compiler.is_compiling():
        mask: Tensor = _opaque_mask(rows, count)
    elif rows.device.type == "cpu":
        mask = _select_by_row(rows, count)
    else:
        mask = _select_on_device(rows, count)
    return mask.view(weight.shape)


class Selector:
    """Repeated selection of the entries of largest magnitude of a weight, as in `top_mask`.

    The search starts at the last threshold, since the next one is near it. This does not affect results: a
    new selector, a copy or one used for another weight selects the same.

    Args:
        count: number of selected entries; it may be changed between two selections.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._last: float | None = None
        self._margin = _MAX_MARGIN
        self._on_device = DeviceSelect()

    def select(self, weight: Tensor) -> EdgeSelection:
        """The selection: indices on the CPU, or a threshold if at least a tenth of the entries is in use;
        on a GPU a mask with a known count, without a synchronization.

        Raises:
            WiringError, NotFiniteError: as in `top_mask`.
        """
        _check_count(self.count, weight)
        weight = weight.detach()
        if torch.compiler.is_compiling():
            mask: Tensor = _opaque_mask(weight.reshape(1, -1), self.count)
            return EdgeSelection.from_mask(mask.view(weight.shape), self.count)
        if weight.device.type != "cpu":
            mask = self._on_device.mask(weight.flatten(), self.count)
            return EdgeSelection.from_mask(mask.view(weight.shape), self.count)
        if self.count and self.count >= _DENSE_FROM * weight.numel() and weight.element_size() >= 4:
            return self._by_threshold(weight)
        guess = self._last and self._last * (1 - self._margin)
        largest = find_largest(_as_numpy(weight.flatten()), self.count, guess)
        if largest is None:
            raise NotFiniteError(_NAN_MESSAGE)
        self._update(largest.threshold)
        return EdgeSelection.from_indices(torch.from_numpy(largest.indices), weight.shape)

    def select_compiled(self, weight: Tensor, count: Tensor) -> EdgeSelection:
        """The selection in a compiled graph, of a number that changes from step to step.

        Args:
            weight: any shape.
            count: the number of entries, int64 on the CPU. As an integer, torch.compile would take it for a
                constant, and compile again after each change.
        """
        mask: Tensor = _opaque_mask_of_count(weight.detach().reshape(1, -1), count)
        return EdgeSelection.from_mask(mask.view(weight.shape))

    def _by_threshold(self, weight: Tensor) -> EdgeSelection:
        last, margin = self._last, self._margin
        band = None if last is None else (last * (1 - margin), last * (1 + margin))
        threshold = find_threshold(weight.flatten().numpy(), self.count, band)
        if threshold is None:
            raise NotFiniteError(_NAN_MESSAGE)
        self._update(threshold.magnitude)
        return EdgeSelection.from_threshold(weight, threshold, self.count)

    def _update(self, threshold: float) -> None:
        if self._last is not None:
            change = abs(threshold - self._last) / self._last
            self._margin = min(max(4 * change, _MIN_MARGIN), _MAX_MARGIN)
        self._last = threshold if 0 < threshold < float("inf") else None


_MIN_MARGIN, _MAX_MARGIN = 2.0**-10, 2.0**-5
"""Distance from the last threshold to the start of the search, as a fraction of the threshold."""
_DENSE_FROM = 0.1
"""Density above which finding only the threshold is faster than listing indices (benchmarks.topk)."""


_NAN_MESSAGE = "an edge weight is NaN, so the strongest edges are not defined"


def _check_count(count: int, weight: Tensor) -> None:
    if not 0 <= count <= weight.numel():
        raise WiringError(f"cannot select {count} of {weight.numel()} edges")


def _as_numpy(weight: Tensor) -> Any:
    """16-bit numbers are converted to float32, which is exact."""
    return (weight.float() if weight.element_size() < 4 else weight).numpy()


def _select_by_row(rows: Tensor, count: int) -> Tensor:
    """On the CPU. Rows with ties at the threshold are rare, and handled one by one."""
    magnitude = np.abs(_as_numpy(rows))
    if np.isnan(magnitude).any():
        raise NotFiniteError(_NAN_MESSAGE)
    if not count:
        return torch.zeros(rows.shape, dtype=torch.bool)
    rank = magnitude.shape[1] - count
    threshold = np.partition(magnitude, rank, axis=1)[:, rank]
    mask = magnitude >= threshold[:, None]
    surplus = mask.sum(axis=1) - count
    for row in np.flatnonzero(surplus):
        ties = np.flatnonzero(magnitude[row] == threshold[row])
        mask[row, ties[ties.size - surplus[row] :]] = False
    return torch.from_numpy(mask)


class DeviceSelect:
    """`top_mask` on a GPU by radix search or by `torch.topk`, whichever is faster for its first weight.

    Both select the same entries. The comparison synchronizes once; it is not made within a CUDA graph or a
    compiled network, which use the radix search. Not measured on a GPU yet.
    """

    def __init__(self) -> None:
        self._radix = radix.RadixSelect()
        self._uses_radix: bool | None = None

    def mask(self, flat: Tensor, count: int) -> Tensor:
        """Boolean mask of a weight, (edges)."""
        if not count or not radix.is_supported(flat):
            return _select_on_device(flat, count)
        if self._uses_radix is None:
            if torch.cuda.is_current_stream_capturing():
                return self._radix.mask(flat, count)
            self._uses_radix = radix.is_faster(
                self._radix, lambda: _select_on_device(flat, count), flat, count
            )
        return self._radix.mask(flat, count) if self._uses_radix else _select_on_device(flat, count)


def _select_on_device(weight: Tensor, count: int) -> Tensor:
    """The same selection along the last dimension in torch operations, without a synchronization. Not
    measured on a GPU yet.

    `topk` ranks a single long row with all of a GPU; its order of ties is not used.
    """
    if count == 0:
        return weight.isnan()
    magnitude = weight.abs()
    threshold = magnitude.topk(count, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    is_tie = magnitude == threshold
    above = ~(magnitude <= threshold)
    return above | (is_tie & (is_tie.cumsum(-1) <= count - above.sum(-1, keepdim=True)))


@library.custom_op("wirings::top_mask", mutates_args=())
def _opaque_mask(rows: Tensor, count: int) -> Tensor:
    """The selection in each row as one operation that torch.compile does not trace."""
    if len(rows) == 1 and count and radix.is_supported(rows):
        return radix.RadixSelect().mask(rows, count)
    return top_mask(rows, count) if len(rows) == 1 else top_mask_by_row(rows, count)


@_opaque_mask.register_fake
def _(rows: Tensor, count: int) -> Tensor:
    return torch.empty_like(rows, dtype=torch.bool)


@library.custom_op("wirings::top_mask_of_count", mutates_args=())
def _opaque_mask_of_count(rows: Tensor, count: Tensor) -> Tensor:
    """`_opaque_mask` of a number in a tensor on the CPU."""
    mask: Tensor = _opaque_mask(rows, int(count))
    return mask


@_opaque_mask_of_count.register_fake
def _(rows: Tensor, count: Tensor) -> Tensor:
    return torch.empty_like(rows, dtype=torch.bool)


def choose_top_edges(weight: Tensor, prune_rate: float) -> Tensor:
    """`weight` with all but its strongest edges set to zero, straight-through.

    Args:
        weight: any shape; one entry is one potential edge.
        prune_rate: fraction of pruned entries, 0..1; numel − int(prune_rate · numel) entries remain.

    Raises:
        WiringError: `prune_rate` is not within 0..1.
        NotFiniteError: a weight is NaN (not raised on a GPU, where it reaches the output).
    """
    selector = Selector(num_kept(weight.numel(), prune_rate))
    return straight_through(weight, selector.select(weight))


def top_mask_of(values: Tensor, candidates: Tensor, count: int) -> Tensor:
    """Boolean mask of the `count` candidates with the largest values; of equal ones, those of lowest index.

    Args:
        values: at least 0.
        candidates: boolean, of the same shape; at least `count` are true.
    """
    # Values below the smallest normal number are raised to it, so that a candidate of value zero ranks above
    # entries that are not candidates.
    tiny = torch.finfo(values.dtype).tiny
    return top_mask(torch.where(candidates, values.clamp_min(tiny), values.new_zeros(())), count)


def sample_without_replacement(scores: Tensor, candidates: Tensor, count: int) -> Tensor:
    """Boolean mask of `count` candidates, drawn one after the other with probabilities proportional to their
    scores; those of score zero are drawn last.

    It takes the largest of log(score) + Gumbel noise. The random numbers are those of the CPU, so that all
    processes draw the same.

    Args:
        scores: at least 0.
        candidates: boolean, of the same shape; at least `count` are true.
        count: number of entries.
    """
    exponential = -torch.log1p(-torch.rand(scores.shape, dtype=torch.float64)).to(scores.device)
    # log(score) − log(exponential) has the order of score / exponential, which is at least 0.
    keys = scores.double() / exponential.clamp_min(1e-300)
    return top_mask_of(keys, candidates, count)
