"""`pwmpr`: a sparse graph that grows along its strong paths.

Source: path weight magnitude product growth, "Growing Winning Subnetworks, Not Pruning Them", 2025. There,
growing ends when the accuracy no longer rises; here, it ends at the budget.
"""

from __future__ import annotations

from typing import Any

import torch

from wirings.errors import WiringError
from wirings.node_matrix import NodeMatrix, path_products
from wirings.rules.base import MaskedEdges, PotentialEdges, Step
from wirings.topk import sample_without_replacement, top_mask_of


class PathGrownEdges(MaskedEdges):
    """`graph: pwmpr`: a random wiring that gets new edges at every `update_interval`-th step, until it has
    the number of the budget. Edges never leave.

    An edge from i to j is drawn with a probability proportional to F_i · B_j. F_i is the sum over all paths
    from the entering nodes to i of the product of the magnitudes of their weights; B_j is that from j to the
    nodes that leave. A new edge has the weight zero. Edges that the forward pass does not read are never in
    use.

    Args:
        potential: the potential edges of a graph without cycles.
        num_edges: number of edges in use at the end.
        first_fraction: fraction of the budget at the start, 0..1.
        update_interval: steps between two updates.
        last_update: fraction of the training at which the budget is reached, 0..1.

    Raises:
        WiringError: an option is out of range, or the graph can have cycles.
    """

    optional_buffers = ()
    has_exact_count = True

    def __init__(
        self,
        potential: PotentialEdges,
        num_edges: int,
        first_fraction: float = 0.25,
        update_interval: int = 100,
        last_update: float = 0.5,
    ) -> None:
        super().__init__(potential, num_edges, None, "readable")
        if not (0 <= first_fraction <= 1 and 0 <= last_update <= 1 and update_interval >= 1):
            raise WiringError(
                "first_fraction and last_update must be within 0..1 and update_interval at least 1, got "
                f"{first_fraction}, {last_update} and {update_interval}"
            )
        self.nodes = NodeMatrix(potential)
        self.nodes.check_acyclic("pwmpr")
        self.first_fraction, self.last_update = first_fraction, last_update
        self.update_interval = update_interval
        self.num_edges = round(first_fraction * self.budget)
        self.mask.copy_(top_mask_of(torch.rand(self.weight.shape), self.scope(), self.num_edges))

    @torch.no_grad()
    def after_backward(self, step: Step) -> None:
        """Grow by the weights before this step's update."""
        end = min(max(round(self.last_update * step.total), 1), step.total)
        done = step.index + 1
        if done == end or (done < end and done % self.update_interval == 0):
            fraction = self.first_fraction + (1 - self.first_fraction) * done / end
            self._grow(round(fraction * self.budget) - self.num_edges, step)

    def _grow(self, count: int, step: Step) -> None:
        in_use = self.mask != 0
        magnitude = self.nodes.expand((self.weight * self.mask).abs().double())
        late = self.nodes.late_columns(self.nodes.expand(self.scope()))
        sizes = self.potential.num_inputs, self.potential.num_outputs
        forward, backward = (sums / sums.amax() for sums in path_products(magnitude, late, *sizes))
        scores = self.nodes.reduce(backward * forward)
        new = sample_without_replacement(scores, self.within_scope(~in_use), count)
        self.weight.masked_fill_(new, 0)
        step.reset_optimizer_state(self.weight, new)
        self.mask.copy_(in_use | new)
        self.num_edges += count

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.num_edges = int((self.mask != 0).sum())
