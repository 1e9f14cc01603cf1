"""`complete`: every potential edge is in use."""

from __future__ import annotations

from wirings.rules.base import EdgeRule, PotentialEdges
from wirings.selection import EdgeSelection


class AllEdges(EdgeRule):
    """`graph: complete`: every potential edge is in use, independent of the budget."""

    has_exact_count = True

    def __init__(self, potential: PotentialEdges, num_edges: int) -> None:
        super().__init__(potential, potential.numel)

    def select(self) -> EdgeSelection:
        return EdgeSelection.full(self.weight.shape, self.weight.device)
