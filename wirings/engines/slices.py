"""Sliced ELLPACK, the order in which a GPU reads the edges."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from wirings.engines.csr import compressed_rows

SLICE = 8
"""Targets of a slice. A program computes at most as many, a power of two."""
UNROLL = 4
"""Edges of a target per iteration of a program; slices are padded to a multiple of it."""


class Slices(NamedTuple):
    """The edges of a product, the targets with most edges first, in slices of SLICE targets.

    Edge `e` of the target at position `p` is at `offsets[p // SLICE] + e * SLICE + p % SLICE`. A slice is as
    wide as its first target needs; padding has the column -1 and the weight 0.

    Attributes:
        order: target at each position, (positions), int32; -1 after the last one.
        counts: edges of each of them, (positions), int32; descending.
        offsets: start of each slice, (slices), int32.
        columns: source of each edge, int32.
        weights: of each edge, float32; float64 for weights in float64.
    """

    order: Tensor
    counts: Tensor
    offsets: Tensor
    columns: Tensor
    weights: Tensor


def slice_edges(weight: Tensor) -> Slices:
    """The non-zero entries of weights (targets, sources), for each target by ascending source."""
    starts, columns, values = compressed_rows(weight)
    counts, order = starts.diff().long().sort(descending=True, stable=True)
    missing = -len(counts) % SLICE
    position = torch.empty_like(order)
    position[order] = torch.arange(len(order), device=order.device)
    counts = torch.cat([counts, counts.new_zeros(missing)])
    order = torch.cat([order, order.new_full((missing,), -1)])
    widths = -(-counts[::SLICE] // UNROLL) * UNROLL
    ends = SLICE * widths.cumsum(0)
    offsets = ends - SLICE * widths

    targets = torch.repeat_interleave(torch.arange(len(weight), device=weight.device), starts.diff().long())
    number = torch.arange(len(columns), device=weight.device) - starts.long()[targets]
    at = offsets[position[targets] // SLICE] + number * SLICE + position[targets] % SLICE
    total = SLICE * int(widths.sum())
    accurate = torch.promote_types(weight.dtype, torch.float32)
    sources = columns.new_full((total,), -1)
    weights = values.new_zeros(total, dtype=accurate)
    sources[at], weights[at] = columns, values.to(accurate)
    return Slices(order.int(), counts.int(), offsets.int(), sources, weights)
