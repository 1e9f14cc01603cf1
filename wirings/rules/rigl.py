"""`rigl`: the weakest edges are replaced by those of largest gradient.

Source: Evci et al., "Rigging the Lottery: Making All Tickets Winners", ICML 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wirings.densities import DensitySchedule
from wirings.drop_and_grow import DropAndGrow, top_mask_of
from wirings.rules.base import PotentialEdges, Step


class GradientGrownEdges(DropAndGrow):
    """`graph: rigl`: the weakest edges are replaced by those of largest gradient.

    Args:
        potential, num_edges, schedule, update_interval, drop_fraction, last_update: see DropAndGrow.
        may_return: whether an edge that an update has just dropped may be grown by it, as in the published
            code; it keeps its weight then.
    """

    def __init__(
        self,
        potential: PotentialEdges,
        num_edges: int,
        schedule: DensitySchedule | None = None,
        update_interval: int = 100,
        drop_fraction: float = 0.3,
        last_update: float = 0.75,
        may_return: bool = True,
    ) -> None:
        super().__init__(potential, num_edges, schedule, update_interval, drop_fraction, last_update)
        self.may_return = may_return

    def update(self, count: int, step: Step) -> None:
        if not self.may_return:  # enough edges that were not in use must be left
            count = min(count, self.potential.numel - max(self.num_edges, int((self.mask != 0).sum())))
        super().update(count, step)

    def grow(self, candidates: Tensor, count: int) -> Tensor:
        if not self.may_return:
            candidates = candidates & (self.mask == 0)
        gradient = self.weight.grad
        scores = torch.zeros_like(self.weight) if gradient is None else gradient.abs()
        return top_mask_of(scores, candidates, count)
