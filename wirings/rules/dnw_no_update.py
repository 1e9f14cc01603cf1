"""`dnw_no_update`: the strongest edges, without the straight-through gradient.

Source: Wortsman, Farhadi, Rastegari, "Discovering Neural Wirings", NeurIPS 2019, table 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wirings.rules.base import MaskedEdges, RankedEdges
from wirings.selection import EdgeSelection


class TopEdgesWithoutUpdate(RankedEdges, MaskedEdges):
    """`graph: dnw_no_update`: the strongest edges are in use, and only they get a gradient.

    An unused edge can come into use only if edges in use become weaker than it. The paper compares the update
    rule of `dnw` with this rule. Edges where the mask is zero are never in use; the mask is all ones unless a
    published checkpoint has another one.

    Args:
        potential: the potential edges.
        num_edges: number of edges in use.
    """

    has_exact_count = False  # a mask may allow fewer

    def scores(self) -> Tensor:
        return self.weight * self.mask

    def select(self) -> EdgeSelection:
        # On a GPU, counting the edges that the mask allows would be a synchronization.
        on_cpu = self.mask.device.type == "cpu" and not torch.compiler.is_compiling()
        is_plain = self.ranking is None and self.readable is None
        if is_plain and on_cpu and MaskedEdges.select(self).count == self.potential.numel:
            return self.strongest(self.weight)
        return EdgeSelection.from_mask(super().select().mask() & (self.mask != 0))
