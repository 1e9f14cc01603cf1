"""`edge_popup`: scores decide which edges are in use; the weights stay as they are.

Source: Ramanujan et al., "What's Hidden in a Randomly Weighted Neural Network?", CVPR 2020.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wirings.densities import DensitySchedule
from wirings.rules.base import EdgeScope, PotentialEdges, RankedEdges
from wirings.selection import EdgeSelection


class _ScoredWeight(torch.autograd.Function):
    """The weights in use; the gradient of a score is that of its weight in use, times the weight."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scores: Tensor, selection: EdgeSelection) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.selection = selection
        return selection.apply(weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        of_weight = ctx.selection.apply(gradient) if ctx.needs_input_grad[0] else None
        return of_weight, gradient * weight, None


class ScoredEdges(RankedEdges):
    """`graph: edge_popup`: the edges of largest score are in use. Each edge has a score, which is trained;
    the gradient reaches the scores of all edges.

    Args:
        potential: the potential edges.
        num_edges: number of edges in use.
        schedule, edge_scope: see EdgeRule.
        train_weights: whether the weights in use are trained too. As published, they are not, and have the
            sign of their initial value and one magnitude.
    """

    ranks_all_layers = False  # scores of two layers are not comparable

    def __init__(
        self,
        potential: PotentialEdges,
        num_edges: int,
        schedule: DensitySchedule | None = None,
        edge_scope: EdgeScope = "all",
        train_weights: bool = False,
    ) -> None:
        super().__init__(potential, num_edges, schedule, edge_scope)
        self.edge_scores = nn.Parameter(torch.empty_like(self.weight))
        nn.init.kaiming_uniform_(self.edge_scores, a=5**0.5)
        self.train_weights = train_weights
        if potential.layer is None:
            self.prepare_layer()

    @torch.no_grad()
    def prepare_layer(self) -> None:
        self._required_grad = self.weight.requires_grad
        if not self.train_weights:
            fan_in = max(1.0, self.budget / self.potential.num_targets)
            self.weight.copy_(self.weight.sign() * (2 / fan_in) ** 0.5)
            self.weight.requires_grad_(False)

    def release_layer(self) -> None:
        self.weight.requires_grad_(self._required_grad)

    def scores(self) -> Tensor:
        """Scores above zero, in the order of `edge_scores`."""
        scores = self.edge_scores.detach()
        return scores - scores.amin()

    def forward(self) -> Tensor:
        result: Tensor = _ScoredWeight.apply(self.weight, self.edge_scores, self.selection())
        return result

    def selection_inputs(self) -> tuple[Tensor, ...]:
        return (self.weight, self.edge_scores, *self.buffers())
