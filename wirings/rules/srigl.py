"""`srigl`: RigL with the same number of incoming edges for every live node.

Source: Lasby, Golubeva, Evci, Nica, Ioannou, "Dynamic Sparse Training with Structured Sparsity", ICLR 2024.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import torch
from torch import Tensor

from wirings.densities import DensitySchedule
from wirings.errors import WiringError
from wirings.rules.base import EdgeScope, PotentialEdges, Step
from wirings.rules.rigl import GradientGrownEdges
from wirings.topk import top_mask, top_mask_by_row, top_mask_of


class ConstantFanIn(GradientGrownEdges):
    """`graph: srigl`: as `rigl`, but every live node (row of the weight) has the same number of edges; one
    with fewer potential edges has all of them.

    A node is ablated, that is, it loses all its edges, if fewer than `min_salient` of its number of incoming
    edges are salient: among the strongest of the layer that an update keeps, or those of largest gradient
    that it would grow. Its edges go to the other nodes.

    Args:
        potential, schedule, edge_scope, update_interval, drop_fraction, last_update: see DropAndGrow.
        num_edges: number of edges in use at most; it is rounded down to a multiple of the live nodes.
        min_salient: fraction of a node's incoming edges that must be salient, 0..1; 0: no node is ablated.

    Raises:
        WiringError: an option is out of range.
    """

    def __init__(
        self,
        potential: PotentialEdges,
        num_edges: int,
        schedule: DensitySchedule | None = None,
        edge_scope: EdgeScope = "all",
        update_interval: int = 100,
        drop_fraction: float | None = None,
        last_update: float = 0.75,
        min_salient: float = 0.3,
    ) -> None:
        super().__init__(
            potential, num_edges, schedule, edge_scope, update_interval, drop_fraction, last_update
        )
        if not 0 <= min_salient <= 1:
            raise WiringError(f"min_salient must be within 0..1, got {min_salient}")
        self.min_salient = min_salient
        # With fewer edges than nodes, only some nodes have one.
        row_scores = self.random_scores().flatten(1).amax(1)  # zero for nodes without potential edges
        live = top_mask(row_scores, min(self.num_edges, potential.num_targets))
        self._set_mask(self.random_scores(), live, self.num_edges)

    def update(self, count: int, step: Step) -> None:
        allowed = self._allowed
        in_use, magnitude, growth = self.mask != 0, self.weight.abs(), self.gradient_magnitude()
        kept = top_mask_of(magnitude, in_use, min(allowed - count, int(in_use.sum())))
        candidates = self.within_scope(~kept)
        salient = kept | top_mask_of(growth, candidates, min(count, int(candidates.sum())))
        # Kept edges come first, by magnitude, then the others by gradient.
        scores = self.within_scope(torch.where(kept, 2 + _scaled(magnitude), 1 + _scaled(growth)))
        self._set_mask(scores, self._live_rows(salient.flatten(1).sum(1), allowed), allowed)
        new = (self.mask != 0) & ~in_use
        self.weight.masked_fill_(new, 0)
        step.reset_optimizer_state(self.weight, new)

    def _set_mask(self, scores: Tensor, live: Tensor, allowed: int) -> None:
        """Give each live node its edges of largest score, equally many and at most `allowed` together."""
        sizes = self.scope().flatten(1).sum(1)[live]  # potential edges of each live node
        fan_in = self._fan_in(sizes, allowed)
        rows = live.view(-1, *[1] * (self.weight.dim() - 1))
        self.mask.copy_(self.within_scope(top_mask_by_row(scores, fan_in) & rows))
        self.num_edges = int(sizes.clamp_max(fan_in).sum())

    def _fan_in(self, sizes: Tensor, allowed: int) -> int:
        """The largest number of edges per node that gives at most `allowed` edges together."""
        fan_ins = range(self.weight[0].numel() + 1)
        return bisect_right(fan_ins, allowed, key=lambda fan_in: int(sizes.clamp_max(fan_in).sum())) - 1

    @property
    def _allowed(self) -> int:
        """Number of edges that may be in use now."""
        return self.budget if self.schedule is None else int(self.num_edges_now)

    def _live_rows(self, salient: Tensor, allowed: int) -> Tensor:
        """Boolean, (targets): the nodes that are not ablated; at least as many as can hold the edges, and not
        more than there are edges.
        """
        was_live = (self.mask.flatten(1) != 0).any(1)
        fan_in = allowed / max(int(was_live.sum()), 1)
        live = was_live & (salient >= self.min_salient * fan_in)
        fewest = max(1, -(-allowed // self.weight[0].numel()))
        if int(live.sum()) < fewest:
            live = top_mask_of(salient.float(), was_live, min(fewest, int(was_live.sum())))
        return live

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.num_edges = int((self.mask != 0).sum())


def _scaled(values: Tensor) -> Tensor:
    """Values of at least 0, within 0..1."""
    return values / values.amax().clamp_min(torch.finfo(values.dtype).tiny)
