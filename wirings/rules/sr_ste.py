"""`sr_ste`: the strongest edges, and decay of the others.

Source: Zhou et al., "Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch", ICLR 2021;
here the mask is that of the strongest edges in place of N of M.
"""

from __future__ import annotations

import torch

from wirings.densities import DensitySchedule
from wirings.errors import WiringError
from wirings.rules.base import EdgeScope, PotentialEdges, RankedEdges, Step


class DecayedHiddenEdges(RankedEdges):
    """`graph: sr_ste`: as `dnw`, but weights that are not in use are pulled towards zero:
    gradient + hidden_decay · weight for them. So edges change places less often.

    Args:
        potential: the potential edges.
        num_edges: number of edges in use.
        schedule, edge_scope: see EdgeRule.
        hidden_decay: decay of the weights that are not in use, as published 2e-4.

    Raises:
        WiringError: `hidden_decay` is negative.
    """

    def __init__(
        self,
        potential: PotentialEdges,
        num_edges: int,
        schedule: DensitySchedule | None = None,
        edge_scope: EdgeScope = "all",
        hidden_decay: float = 2e-4,
    ) -> None:
        super().__init__(potential, num_edges, schedule, edge_scope)
        if hidden_decay < 0:
            raise WiringError(f"hidden_decay must be at least 0, got {hidden_decay}")
        self.hidden_decay = hidden_decay

    @torch.no_grad()
    def after_backward(self, step: Step) -> None:
        gradient = self.weight.grad
        if gradient is not None:
            in_use = self.selection().apply(self.weight)
            gradient.add_(self.weight - in_use, alpha=self.hidden_decay)
