"""`fine_tune`: the frozen wiring of a trained network."""

from __future__ import annotations

from wirings.rules.base import MaskedEdges
from wirings.topk import top_mask


class FixedTopEdges(MaskedEdges):
    """`graph: fine_tune`: the strongest edges of a trained network, selected once and then frozen.

    Args:
        potential: the potential edges.
        num_edges: number of edges in use after `freeze_wiring`; before, all are.
    """

    has_fixed_wiring = True
    needs_trained_weights = True

    def freeze_wiring(self) -> None:
        """Freeze the strongest edges, among those that the mask allows."""
        self.mask.copy_(top_mask(self.within_scope(self.weight * self.mask), self.num_edges))
