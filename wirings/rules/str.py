"""`str`: a soft threshold that is learned, with a controller that reaches a wanted density.

Source: Kusupati et al., "Soft Threshold Weight Reparameterization for Learnable Sparsity", ICML 2020. The
controller is not from there: as published, weight decay and the loss alone move the threshold, so that no
density can be aimed at.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wirings.densities import Cubic, DensitySchedule
from wirings.errors import WiringError
from wirings.rules.base import EdgeRule, EdgeScope, PotentialEdges, Step
from wirings.selection import EdgeSelection
from wirings.topk import top_mask_of

_SMALLEST = 1e-6  # threshold, since sigmoid(s) is never 0


class LearnedThreshold(EdgeRule):
    """`graph: str`: the edges of magnitude above a threshold, with the value sign(w) · (|w| − threshold). The
    threshold is sigmoid(s), and s is trained with the weights, which get a gradient where they are in use.

    The number of edges is not exact. In each step, the controller moves s by the fraction `control` of its
    distance to the value at which the scheduled number of edges would be in use.

    Args:
        potential: the potential edges.
        num_edges: number of edges that is aimed at, at the end.
        schedule: this number during the training; by default all at first, and the budget after half of it.
        edge_scope: see EdgeScope.
        initial_logit: s at the start.
        control: strength of the controller, 0..1. 0: as published; `num_edges` and `schedule` have no effect.

    Raises:
        WiringError: `control` is out of range.
    """

    gradient = "used"
    default_schedule = Cubic()

    def __init__(
        self,
        potential: PotentialEdges,
        num_edges: int,
        schedule: DensitySchedule | None = None,
        edge_scope: EdgeScope = "all",
        initial_logit: float = -10.0,
        control: float = 0.1,
    ) -> None:
        super().__init__(potential, num_edges, schedule, edge_scope)
        if not 0 <= control <= 1:
            raise WiringError(f"control must be within 0..1, got {control}")
        self.control = control
        self.threshold_logit = nn.Parameter(torch.tensor(float(initial_logit)))

    def select(self) -> EdgeSelection:
        """Select the readable edges above the threshold."""
        above = self.weight.detach().abs() > self.threshold_logit.detach().sigmoid()
        return EdgeSelection.from_mask(self.within_scope(above))

    def selection_inputs(self) -> tuple[Tensor, ...]:
        return (self.weight, self.threshold_logit, *self.buffers())

    def forward(self) -> Tensor:
        shrunk = (self.weight.abs() - self.threshold_logit.sigmoid()).relu()
        return self.within_scope(self.weight.sign() * shrunk)

    @torch.no_grad()
    def after_backward(self, step: Step) -> None:
        if self.control:
            distance = self._aimed_logit() - self.threshold_logit
            self.threshold_logit.add_(self.control * distance)

    def _aimed_logit(self) -> Tensor:
        """s at which `num_edges` edges are in use."""
        magnitude = self.within_scope(self.weight.abs())
        largest_unused = magnitude.masked_fill(top_mask_of(magnitude, self.scope(), self.num_edges), 0).amax()
        return torch.logit(largest_unused.clamp(_SMALLEST, 1 - _SMALLEST))
