"""`random`: a fixed random wiring."""

from __future__ import annotations

import torch

from wirings.rules.base import EdgeScope, MaskedEdges, PotentialEdges
from wirings.topk import top_mask


class RandomEdges(MaskedEdges):
    """`graph: random`: a fixed random set of edges, drawn once; only their weights are trained.

    If `potential.acyclic` is true, the wiring has the published pattern: the columns of the nodes that do not
    enter from outside are divided into steps of `num_outputs`. Step i (from 1) has no edges in the first
    i · `num_outputs` rows, as long as enough other entries are left.

    Args:
        potential: the potential edges.
        num_edges: number of edges in use.
        edge_scope: see EdgeScope; with `readable`, the wiring has no pattern.
    """

    has_fixed_wiring = True
    has_exact_count = True
    optional_buffers = ()  # a random wiring comes from the checkpoint or not at all

    def __init__(self, potential: PotentialEdges, num_edges: int, edge_scope: EdgeScope = "all") -> None:
        super().__init__(potential, num_edges, None, edge_scope)
        scores = torch.rand(potential.shape)
        if self.readable is not None:
            scores = self.within_scope(1 - scores)  # above zero
        elif potential.acyclic:
            step = potential.num_outputs
            for row, column in enumerate(range(potential.num_inputs, potential.num_sources, step), start=1):
                scores[: row * step, column : column + step] = 0
        self.mask.copy_(top_mask(scores, self.num_edges))
