"""`dnw`: the strongest edges, learned with a straight-through gradient.

Source: Wortsman, Farhadi, Rastegari, "Discovering Neural Wirings", NeurIPS 2019.
"""

from __future__ import annotations

from wirings.rules.base import RankedEdges


class TopEdges(RankedEdges):
    """`graph: dnw`: the edges of largest magnitude are in use, but the gradient reaches all weights, so that
    the wiring is learned.

    Args:
        potential: the potential edges.
        num_edges: number of edges in use.
        schedule: see EdgeRule.
        edge_scope: see EdgeScope.
    """
