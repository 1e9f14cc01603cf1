"""`dnw`: the strongest edges, learned with a straight-through gradient.

Source: Wortsman, Farhadi, Rastegari, "Discovering Neural Wirings", NeurIPS 2019.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from wirings.densities import DensitySchedule
from wirings.rules.base import PotentialEdges, RankedEdges
from wirings.selection import EdgeSelection


class TopEdges(RankedEdges):
    """`graph: dnw`: the edges of largest magnitude are in use, but the gradient reaches all weights, so that
    the wiring is learned.

    Args:
        potential: the potential edges.
        num_edges: number of edges in use.
        schedule: see EdgeRule.
        edge_scope: `all` ranks every entry of the weight, as published; `readable` ranks only the entries
            that the forward pass reads, so that every edge in use has an effect.
    """

    readable: Tensor | None

    def __init__(
        self,
        potential: PotentialEdges,
        num_edges: int,
        schedule: DensitySchedule | None = None,
        edge_scope: Literal["all", "readable"] = "all",
    ) -> None:
        readable = potential.readable_mask if edge_scope == "readable" else None
        self._num_potential = potential.numel if readable is None else int(readable.sum())
        super().__init__(potential, min(num_edges, self._num_potential), schedule)
        self.register_buffer("readable", None if readable is None else readable.flatten(), persistent=False)

    @property
    def num_potential(self) -> int:
        return self._num_potential

    def scores(self) -> Tensor:
        if self.readable is None:
            return self.weight
        readable = self.readable.view(self.weight.shape)
        return torch.where(readable, self.weight.detach(), self.weight.new_zeros(()))

    def select(self) -> EdgeSelection:
        if self.readable is None or self.ranking is not None:
            return super().select()
        if self.weight.device.type == "cpu" and not torch.compiler.is_compiling():
            selection = self.strongest(self.scores())
            # Zero weights have the score of entries that are not read, and may be selected in their place.
            if bool(self.readable[selection.indices()].all()):
                return selection
        mask = torch.zeros_like(self.readable)
        ranked = self.weight.detach().flatten()[self.readable]
        mask[self.readable] = self.strongest(ranked).mask()
        return EdgeSelection.from_mask(mask.view(self.weight.shape), self.num_edges)
