"""`st3`: soft thresholding with a straight-through gradient and gradual density.

Source: Vanderschueren, De Vleeschouwer, "Are Straight-Through gradients and Soft-Thresholding all you need
for Sparse Training?", WACV 2023.
"""

from __future__ import annotations

from torch import Tensor

from wirings.densities import Cubic
from wirings.soft_thresholds import SoftThreshold


class SoftThresholdedEdges(SoftThreshold):
    """`graph: st3`: the strongest edges, with the value c · sign(w) · (|w| − threshold); the gradient reaches
    all weights unchanged.

    c restores the scale of each row: 1.01 / (0.01 + r), where r is the sum of the magnitudes in use over that
    of all magnitudes of the row.

    Args:
        potential: the potential edges.
        num_edges: number of edges in use at the end.
        schedule: number of edges in use during the training; by default all at first, and the budget after
            half of the training.
        edge_scope: see EdgeScope.
    """

    default_schedule = Cubic()

    def transform(self, weight: Tensor, threshold: Tensor) -> Tensor:
        magnitude = weight.abs()
        rows = magnitude.flatten(1)
        in_use = rows.masked_fill(rows <= threshold, 0).mean(1)
        ratio = in_use / rows.mean(1).clamp_min(1e-12)
        scale = 1.01 / (0.01 + ratio)
        shrunk = weight.sign() * (magnitude - threshold).clamp_min(0)
        return shrunk * scale.view(-1, *[1] * (weight.dim() - 1))
