"""`feather`: a threshold between hard and soft, and damped gradients of the other edges.

Source: Glentis Georgoulakis, Retsinas, Maragos, "Feather: An Elegant Solution to Effective DNN
Sparsification", BMVC 2023.
"""

from __future__ import annotations

from torch import Tensor

from wirings.densities import Cubic, DensitySchedule
from wirings.errors import WiringError
from wirings.rules.base import EdgeScope, PotentialEdges
from wirings.soft_thresholds import SoftThreshold


class FeatherEdges(SoftThreshold):
    """`graph: feather`: the strongest edges, with the value sign(w) · (|w|^p − threshold^p)^(1/p); the
    gradient of the other edges is multiplied by theta.

    Args:
        potential: the potential edges.
        num_edges: number of edges in use at the end.
        schedule: number of edges in use during the training; by default all at first, and the budget after
            half of the training.
        edge_scope: see EdgeScope.
        power: p, as published 3; 1 is a soft threshold, a large one a hard threshold.
        theta: factor of the gradient of unused edges; None: as published 1, and 0.5 for budgets below 5 %.

    Raises:
        WiringError: `power` is less than 1.
    """

    default_schedule = Cubic()

    def __init__(
        self,
        potential: PotentialEdges,
        num_edges: int,
        schedule: DensitySchedule | None = None,
        edge_scope: EdgeScope = "all",
        power: float = 3.0,
        theta: float | None = None,
    ) -> None:
        super().__init__(potential, num_edges, schedule, edge_scope)
        if power < 1:
            raise WiringError(f"power must be at least 1, got {power}")
        self.power = power
        density = self.budget / max(self.num_potential, 1)
        self.unused_gradient = (0.5 if density < 0.05 else 1.0) if theta is None else theta

    def transform(self, weight: Tensor, threshold: Tensor) -> Tensor:
        magnitude = weight.abs()
        inner = (magnitude**self.power - threshold**self.power).clamp_min(0)
        return weight.sign() * inner ** (1 / self.power)
