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

    An edge that is not in use can come back only when the used ones become weaker than it. The paper's
    comparison for the update rule of `dnw`. A mask of a published file limits the edges; at first all are
    allowed.

    Args:
        space: the potential edges.
        num_edges: number of edges in use.
    """

    def scores(self) -> Tensor:
        return self.weight * self.mask

    def select(self) -> EdgeSelection:
        # On a GPU, counting the edges that the mask allows would be a synchronization.
        on_cpu = self.mask.device.type == "cpu" and not torch.compiler.is_compiling()
        if self.ranking is None and on_cpu and self.allowed().count == self.space.numel:
            return self.strongest(self.weight)
        return EdgeSelection.from_mask(super().select().mask() & (self.mask != 0))
