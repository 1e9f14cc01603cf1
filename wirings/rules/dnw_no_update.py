"""`dnw_no_update`: the strongest edges, without the straight-through gradient.

Source: Wortsman, Farhadi, Rastegari, "Discovering Neural Wirings", NeurIPS 2019, table 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wirings.rules.base import EdgeSpace, MaskedEdges
from wirings.selection import EdgeSelection
from wirings.topk import Selector


class TopEdgesWithoutUpdate(MaskedEdges):
    """`graph: dnw_no_update`: the strongest edges are in use, and only they get a gradient.

    An edge that is not in use can come back only when the used ones become weaker than it. The paper's
    comparison for the update rule of `dnw`.

    Args:
        space: the potential edges.
        num_edges: how many are in use.
    """

    def __init__(self, space: EdgeSpace, num_edges: int) -> None:
        super().__init__(space, num_edges)
        self._selector = Selector(num_edges)

    def select(self) -> EdgeSelection:
        self._selector.count = self.num_edges
        selection = self._selector.select(self.weight * self.mask)
        if self.mask.device.type == "cpu" and not torch.compiler.is_compiling():
            allowed = super().select()
            if allowed.count == self.space.numel:
                return selection
        return EdgeSelection.from_mask(selection.mask() & (self.mask != 0))

    def deciding(self) -> tuple[Tensor, ...]:
        return self.weight, self.mask
