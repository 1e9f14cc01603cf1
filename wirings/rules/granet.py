"""`granet`: gradual pruning with regrown edges.

Source: Liu et al., "Sparse Training via Boosting Pruning Plasticity with Neuroregeneration", NeurIPS 2021.
There, edges are pruned by one ranking of all layers; here, each layer has its own budget.
"""

from __future__ import annotations

from wirings.densities import Cubic, DensitySchedule
from wirings.rules.base import PotentialEdges
from wirings.rules.rigl import GradientGrownEdges


class RegrownEdges(GradientGrownEdges):
    """`graph: granet`: as `rigl`, but the number of edges falls from half of them to the budget, and each
    update replaces more of them.

    Args:
        potential, num_edges, update_interval, last_update, may_return: see GradientGrownEdges.
        schedule: number of edges in use during the training; by default half of all at first, and the budget
            after three tenths of the training.
        drop_fraction: fraction of the edges that the first update replaces, as published 0.5.
    """

    default_schedule = Cubic(first_density=0.5, end=0.3)

    def __init__(
        self,
        potential: PotentialEdges,
        num_edges: int,
        schedule: DensitySchedule | None = None,
        update_interval: int = 100,
        drop_fraction: float = 0.5,
        last_update: float = 0.75,
        may_return: bool = True,
    ) -> None:
        super().__init__(
            potential, num_edges, schedule, update_interval, drop_fraction, last_update, may_return
        )
