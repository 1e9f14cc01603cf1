"""`dnw`: the strongest edges, learned with a straight-through gradient.

Source: Wortsman, Farhadi, Rastegari, "Discovering Neural Wirings", NeurIPS 2019.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from wirings.rules.base import EdgeRule, EdgeSpace
from wirings.selection import EdgeSelection
from wirings.topk import Selector


class TopEdges(EdgeRule):
    """`graph: dnw`: the edges of largest magnitude are in use, but the gradient reaches all weights, so that
    the wiring is learned.

    Args:
        space: the potential edges.
        num_edges: how many are in use.
        edge_scope: `all` ranks every entry of the weight, as published; `readable` ranks those entries alone
            that the forward pass reads, so that no edge in use is without effect.
    """

    readable: Tensor | None

    def __init__(
        self, space: EdgeSpace, num_edges: int, edge_scope: Literal["all", "readable"] = "all"
    ) -> None:
        super().__init__(space, num_edges)
        readable = space.readable if edge_scope == "readable" else None
        self.register_buffer("readable", None if readable is None else readable.flatten(), persistent=False)
        if readable is not None:
            self.num_edges = min(num_edges, int(readable.sum()))
        self._selector = Selector(self.num_edges)

    def select(self) -> EdgeSelection:
        self._selector.count = self.num_edges
        if self.readable is None:
            return self._selector.select(self.weight)
        mask = torch.zeros_like(self.readable)
        ranked = self.weight.detach().flatten()[self.readable]
        mask[self.readable] = self._selector.select(ranked).mask()
        return EdgeSelection.from_mask(mask.view(self.weight.shape), self.num_edges)
