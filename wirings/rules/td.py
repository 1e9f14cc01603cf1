"""`td`: targeted dropout.

Source: Gomez et al., "Learning Sparse Networks Using Targeted Dropout", arXiv 1905.13678.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from wirings.densities import DensitySchedule
from wirings.errors import WiringError
from wirings.rules.base import PotentialEdges, RankedEdges


class TargetedDropout(RankedEdges):
    """`graph: td`: weak edges are each dropped with probability `rho` in training, all of them in evaluation.

    The edges in use, as reported, are those that are never dropped.

    Args:
        potential: the potential edges.
        num_edges: number of edges that are never dropped, those of largest magnitude.
        schedule: see EdgeRule.
        prune_rate: fraction of the edges that is weak; the value of rho where rho is `gamma`.
        rho: probability of dropping a weak edge in training.
        td_magnitude: use |w| in place of w, as the published code did, which loses all signs.

    Raises:
        WiringError: `rho` is missing or is not a probability.
    """

    def __init__(
        self,
        potential: PotentialEdges,
        num_edges: int,
        prune_rate: float,
        rho: float | Literal["gamma"] | None,
        td_magnitude: bool = False,
        schedule: DensitySchedule | None = None,
    ) -> None:
        super().__init__(potential, num_edges, schedule)
        if rho is None:
            raise WiringError("needs rho, the probability of dropping a weak edge, such as rho: 0.95")
        self.prune_rate = prune_rate
        self.rho = prune_rate if rho == "gamma" else float(rho)
        if not 0 <= self.rho <= 1:
            raise WiringError(f"rho must be within 0..1, got {rho}")
        self.td_magnitude = td_magnitude

    def count_training_edges(self, in_use: int) -> int:
        """The mean over the random numbers: edges in use, and weak ones that are not dropped."""
        return in_use + round((1 - self.rho) * (self.potential.num_readable - in_use))

    def count_gradient_edges(self, in_use: int) -> int:
        return self.count_training_edges(in_use)

    def forward(self) -> Tensor:
        weight = self.weight.abs() if self.td_magnitude else self.weight
        return targeted_dropout(weight, self.in_use(), self.rho if self.training else 1.0)


def targeted_dropout(weight: Tensor, keep_mask: Tensor, rho: float) -> Tensor:
    """`weight` with the entries outside of `keep_mask` (boolean) each set to zero with probability `rho`."""
    return weight * (keep_mask if rho == 1 else keep_mask | (torch.rand_like(weight) >= rho))
