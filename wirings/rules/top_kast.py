"""`top_kast`: the strongest edges are in use, and some more get a gradient.

Source: Jayakumar et al., "Top-KAST: Top-K Always Sparse Training", NeurIPS 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wirings.densities import DensitySchedule
from wirings.errors import WiringError
from wirings.rules.base import EdgeRule, EdgeScope, PotentialEdges, Step
from wirings.selection import EdgeSelection
from wirings.topk import top_mask_of


class ExploringEdges(EdgeRule):
    """`graph: top_kast`: the strongest edges are in use; they and the strongest of the others get a gradient.

    Weights that get a gradient decay, those that are not in use more strongly: gradient + decay · weight, and
    decay / density · weight. Both sets are chosen again at every `update_interval`-th step.

    Args:
        potential: the potential edges.
        num_edges: number of edges in use.
        schedule, edge_scope: see EdgeRule.
        explored: edges that get a gradient without being in use, as a fraction of the potential ones.
        update_interval: steps between two choices of the edges.
        decay: strength of the decay, as published 1e-4.

    Raises:
        WiringError: an option is out of range.
    """

    has_exact_count = True
    in_forward: Tensor
    in_backward: Tensor

    def __init__(
        self,
        potential: PotentialEdges,
        num_edges: int,
        schedule: DensitySchedule | None = None,
        edge_scope: EdgeScope = "all",
        explored: float = 0.1,
        update_interval: int = 100,
        decay: float = 1e-4,
    ) -> None:
        super().__init__(potential, num_edges, schedule, edge_scope)
        if not 0 <= explored <= 1 or update_interval < 1 or decay < 0:
            raise WiringError(
                "explored must be within 0..1, update_interval at least 1 and decay at least 0, got explored "
                f"{explored}, update_interval {update_interval}, decay {decay}"
            )
        self.explored, self.update_interval, self.decay = explored, update_interval, decay
        for name in ("in_forward", "in_backward"):
            self.register_buffer(name, torch.zeros(self.weight.shape, dtype=torch.bool))
        self._choose()

    def count_gradient_edges(self, in_use: int) -> int:
        return min(in_use + self._num_explored, self.potential.num_readable)

    @property
    def _num_explored(self) -> int:
        """Edges that get a gradient without being in use."""
        return min(round(self.explored * self.num_potential), self.num_potential - self.num_edges)

    def select(self) -> EdgeSelection:
        return EdgeSelection.from_mask(self.in_forward)

    @torch.no_grad()
    def after_backward(self, step: Step) -> None:
        gradient = self.weight.grad
        if gradient is not None:
            density = max(self.num_edges, 1) / self.num_potential
            decay = torch.where(self.in_forward, self.decay, self.decay / density)
            gradient.addcmul_(decay, self.weight).masked_fill_(~self.in_backward, 0)
        if (step.index + 1) % self.update_interval == 0 or step.index + 1 == step.total:
            if self.schedule is not None:
                self.set_progress((step.index + 1) / step.total)
            self._choose()

    def follow_schedule(self, step: Step) -> None:
        """The number of edges changes where they are chosen again."""

    @torch.no_grad()
    def _choose(self) -> None:
        magnitude, scope = self.weight.abs(), self.scope()
        self.in_forward.copy_(top_mask_of(magnitude, scope, self.num_edges))
        self.in_backward.copy_(top_mask_of(magnitude, scope, self.num_edges + self._num_explored))
