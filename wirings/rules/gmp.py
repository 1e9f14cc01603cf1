"""`gmp`: gradual magnitude pruning.

Source: Zhu, Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression",
arXiv 1710.01878.
"""

from __future__ import annotations

from wirings.densities import Cubic
from wirings.rules.base import RankedEdges
from wirings.selection import Gradient


class GradualPruning(RankedEdges):
    """`graph: gmp`: the edges of largest magnitude are in use, fewer and fewer of them; only they get a
    gradient.

    An edge that has left can come back only if those in use become weaker than it.

    Args:
        potential: the potential edges.
        num_edges: number of edges in use at the end.
        schedule: number of edges in use during the training; by default all at first, and the budget after
            half of the training.
        edge_scope: see EdgeScope.
    """

    gradient: Gradient = "used"
    default_schedule = Cubic()
