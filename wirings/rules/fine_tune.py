"""`fine_tune`: the wiring of a trained network, fixed."""

from __future__ import annotations

from wirings.rules.base import MaskedEdges
from wirings.topk import top_mask


class FixedTopEdges(MaskedEdges):
    """`graph: fine_tune`: the strongest edges of a trained network, chosen once and then fixed.

    Args:
        space: the potential edges.
        num_edges: how many are in use after `fix_wiring`; before, all are.
    """

    def fix_wiring(self) -> None:
        """Fix the strongest edges, among those that the mask has allowed so far."""
        self.mask.copy_(top_mask(self.weight * self.mask, self.num_edges))
