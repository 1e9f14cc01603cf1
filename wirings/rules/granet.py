"""`granet`: gradual pruning with regrown edges.

Source: Liu et al., "Sparse Training via Boosting Pruning Plasticity with Neuroregeneration", NeurIPS 2021.
There, edges are pruned by one ranking of all layers; here, each layer has its own budget.
"""

from __future__ import annotations

from wirings.densities import Cubic
from wirings.rules.rigl import GradientGrownEdges


class RegrownEdges(GradientGrownEdges):
    """`graph: granet`: as `rigl`, but the number of edges falls from half of them to the budget, and each
    update replaces more of them.

    By default, half of all edges are in use at first, and the budget after three tenths of the training; the
    first update replaces half of the edges.
    """

    default_schedule = Cubic(first_density=0.5, end=0.3)
    default_drop_fraction = 0.5
