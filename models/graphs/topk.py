"""Choosing the strongest edges, exactly, and the straight-through gradient that keeps the rest in the race.

Source: Wortsman, Farhadi, Rastegari, "Discovering Neural Wirings", NeurIPS 2019, section 2.2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genutil.errors import NotFiniteError
from models.graphs.bracket import largest_by_bracket, largest_by_ranking

_NAN_MESSAGE = "an edge weight is NaN, so the strongest edges are not defined"


def num_kept(num_edges: int, prune_rate: float) -> int:
    """Edges in use: all of them minus the whole number of pruned ones.

    Raises:
        ValueError: `prune_rate` is not within 0..1.
    """
    if not 0 <= prune_rate <= 1:
        raise ValueError(f"prune_rate must be within 0..1, got {prune_rate}")
    return num_edges - int(prune_rate * num_edges)


def top_mask(weight: Tensor, count: int) -> Tensor:
    """Mark the `count` entries of largest magnitude; of equal ones at the border, those of lowest index.

    Args:
        weight: any shape, any floating type, any device.
        count: 0..numel.

    Returns:
        Boolean mask of the same shape with exactly `count` true entries; it shares no memory with `weight`.

    Raises:
        ValueError: `count` is out of range.
        NotFiniteError: an entry is NaN; it has no rank.
    """
    flat = weight.detach().flatten()
    if not 0 <= count <= flat.numel():
        raise ValueError(f"cannot choose {count} of {flat.numel()} edges")
    if count == 0 or count == flat.numel():
        if flat.isnan().any():
            raise NotFiniteError(_NAN_MESSAGE)
        return torch.full_like(weight, count > 0, dtype=torch.bool, memory_format=torch.contiguous_format)
    mask = _select_on_cpu(flat, count) if flat.device.type == "cpu" else _select_on_device(flat, count)
    return mask.view(weight.shape)


def _select_on_cpu(flat: Tensor, count: int) -> Tensor:
    """By bits, since NumPy compares and ranks integers with vector instructions."""
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[flat.element_size()]
    bits = flat.view(integer).numpy()
    mask, largest = largest_by_bracket(bits, count) or largest_by_ranking(bits, count)
    infinity = torch.tensor(torch.inf, dtype=flat.dtype).view(integer).item()
    if largest > infinity:  # the bits of every NaN lie above those of infinity
        raise NotFiniteError(_NAN_MESSAGE)
    return torch.from_numpy(mask)


def _select_on_device(flat: Tensor, count: int) -> Tensor:
    """The same selection in torch operations; one host synchronisation reads the numbers of ties and NaN."""
    magnitude = flat.abs()
    threshold = magnitude.kthvalue(flat.numel() - count + 1).values
    mask = magnitude >= threshold
    surplus, num_nan = torch.stack([mask.sum() - count, magnitude.isnan().sum()]).tolist()
    if num_nan:
        raise NotFiniteError(_NAN_MESSAGE)
    if surplus:
        ties = (magnitude == threshold).nonzero().flatten()
        mask[ties[-surplus:]] = False
    return mask


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor) -> Tensor:
        # Not weight * mask: that leaves −0.0 behind and turns a pruned infinity into NaN.
        return torch.where(mask, weight, weight.new_zeros(()))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


def straight_through(weight: Tensor, mask: Tensor) -> Tensor:
    """`weight` where `mask` is true and 0 elsewhere; the gradient reaches every weight as if it were in use.

    Since the values downstream are computed with the zeros, no gradient flows *through* unused edges: only
    their own weights are told how useful they would be.
    """
    result: Tensor = _StraightThrough.apply(weight, mask)
    return result


def choose_top_edges(weight: Tensor, prune_rate: float) -> Tensor:
    """`weight` with all but its strongest edges set to zero, straight-through.

    Args:
        weight: any shape; one entry is one potential edge.
        prune_rate: part left out, 0..1; numel − int(prune_rate · numel) entries stay.

    Raises:
        ValueError: `prune_rate` is not within 0..1.
        NotFiniteError: a weight is NaN.
    """
    return straight_through(weight, top_mask(weight, num_kept(weight.numel(), prune_rate)))
