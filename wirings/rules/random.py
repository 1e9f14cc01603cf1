"""`random`: a fixed random wiring."""

from __future__ import annotations

import torch

from wirings.rules.base import EdgeSpace, MaskedEdges
from wirings.topk import top_mask


class RandomEdges(MaskedEdges):
    """`graph: random`: a fixed random set of edges, drawn once; only their weights are trained.

    In an acyclic space the wiring has the published pattern: in steps of `num_outputs` columns, the entries
    above each step get score zero before the highest random scores are selected.

    Args:
        space: the potential edges.
        num_edges: number of edges in use.
    """

    optional_buffers = ()

    def __init__(self, space: EdgeSpace, num_edges: int) -> None:
        super().__init__(space, num_edges)
        scores = torch.rand(space.shape)
        if space.acyclic:
            step = space.num_outputs
            for row, column in enumerate(range(space.num_inputs, space.num_sources, step), start=1):
                scores[: row * step, column : column + step] = 0
        self.mask.copy_(top_mask(scores, num_edges))
