"""`dnw_no_update`: the strongest edges, without the straight-through gradient.

Source: Wortsman, Farhadi, Rastegari, "Discovering Neural Wirings", NeurIPS 2019, table 1.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from wirings.rules.base import EdgeSpace, RankedEdges, selection_of_mask
from wirings.selection import EdgeSelection, Gradient
from wirings.selection_cache import SelectionCache


class TopEdgesWithoutUpdate(RankedEdges):
    """`graph: dnw_no_update`: the strongest edges are in use, and only they get a gradient.

    An edge that is not in use can come back only when the used ones become weaker than it. The paper's
    comparison for the update rule of `dnw`. A mask of a published file limits the edges; at first all are
    allowed.

    Args:
        space: the potential edges.
        num_edges: how many are in use.
    """

    gradient: ClassVar[Gradient] = "used"
    optional_buffers: ClassVar[tuple[str, ...]] = ("mask",)
    mask: Tensor

    def __init__(self, space: EdgeSpace, num_edges: int) -> None:
        super().__init__(space, num_edges)
        self.register_buffer("mask", torch.ones_like(self.weight))
        self._allowed = SelectionCache()

    def scores(self) -> Tensor:
        return self.weight if self._allows_all() else self.weight * self.mask

    def select(self) -> EdgeSelection:
        selection = super().select()
        if self._allows_all():
            return selection
        return EdgeSelection.from_mask(selection.mask() & (self.mask != 0))

    def _allows_all(self) -> bool:
        """Whether the mask is known to limit nothing; a GPU is not waited for to find out."""
        if self.mask.device.type != "cpu" or torch.compiler.is_compiling():
            return False
        return selection_of_mask(self.mask, self._allowed).count == self.space.numel
