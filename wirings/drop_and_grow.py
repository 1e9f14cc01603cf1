"""Drop-and-grow rules: at regular steps, weak edges in use are replaced by others."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from wirings.densities import DensitySchedule
from wirings.errors import WiringError
from wirings.rules.base import EdgeScope, MaskedEdges, PotentialEdges, Step
from wirings.topk import top_mask, top_mask_of


class DropAndGrow(MaskedEdges):
    """Replaces edges in use at every `update_interval`-th step. Subclasses define `grow`, and may
    define `keep`.

    An update first drops the edges in use of smallest magnitude, then grows as many others: new edges have
    the weight zero, and no momentum. The fraction that is replaced falls with a cosine from `drop_fraction`
    to zero at `last_update`. The optimizer does not change the weight in a step of an update. Between the
    updates, the gradient reaches only the edges in use.

    With a density schedule, an update also changes the number of edges; a last one is made when the schedule
    ends.

    Args:
        potential: the potential edges.
        num_edges: number of edges in use (at the end of the schedule); at the start, they are random.
        schedule, edge_scope: see EdgeRule.
        update_interval: steps between two updates.
        drop_fraction: fraction of the edges that the first update replaces, 0..1; None: as published.
        last_update: fraction of the training after which no edge is replaced, 0..1.
        may_return: whether an edge that an update has just dropped may be grown by it, as in the published
            code of RigL; it keeps its weight then.

    Raises:
        WiringError: an option is out of range.
    """

    optional_buffers = ()
    has_exact_count = True
    default_drop_fraction: ClassVar[float] = 0.3
    """`drop_fraction` as published."""
    reads_all_gradients = True
    """Whether `grow` reads the gradient of edges that are not in use."""
    next_is_update: Tensor

    def __init__(
        self,
        potential: PotentialEdges,
        num_edges: int,
        schedule: DensitySchedule | None = None,
        edge_scope: EdgeScope = "all",
        update_interval: int = 100,
        drop_fraction: float | None = None,
        last_update: float = 0.75,
        may_return: bool = True,
    ) -> None:
        super().__init__(potential, num_edges, schedule, edge_scope)
        drop_fraction = self.default_drop_fraction if drop_fraction is None else drop_fraction
        if update_interval < 1:
            raise WiringError(f"update_interval must be at least 1, got {update_interval}")
        if not (0 <= drop_fraction <= 1 and 0 <= last_update <= 1):
            raise WiringError(
                "drop_fraction and last_update must be within 0..1, "
                f"got drop_fraction {drop_fraction}, last_update {last_update}"
            )
        self.update_interval, self.drop_fraction = update_interval, drop_fraction
        self.last_update, self.may_return = last_update, may_return
        self.mask.copy_(top_mask(self.random_scores(), self.num_edges))
        self.register_buffer("next_is_update", torch.tensor(False))
        self.gradient = "used"

    @abstractmethod
    def grow(self, kept: Tensor, candidates: Tensor, count: int) -> Tensor:
        """Boolean mask of the edges to grow.

        Args:
            kept: boolean mask of the edges that stay in use.
            candidates: boolean mask of the edges that may be grown.
            count: number of them to grow.
        """

    def keep(self, in_use: Tensor, count: int, step: Step) -> Tensor:
        """Boolean mask of the edges that stay in use; by default the strongest ones.

        Args:
            in_use: boolean mask of the edges in use.
            count: how many of them stay in use.
            step: the current training step.
        """
        return top_mask_of(self.weight.abs(), in_use, count)

    def random_scores(self) -> Tensor:
        """Uniform random numbers above zero, zero for edges that cannot be in use. They are the same in all
        processes, since checkpoints hold the state of their generator.
        """
        return self.within_scope((1 - torch.rand(self.weight.shape)).to(self.weight.device))

    def replaced_fraction(self, step: Step) -> float:
        """Fraction of the edges in use that an update at this step replaces."""
        end = self.last_update * step.total
        if step.index >= end:
            return 0.0
        return self.drop_fraction / 2 * (1 + math.cos(math.pi * step.index / end))

    def is_update(self, index: int, total: int) -> bool:
        """Whether the wiring changes in this step."""
        end = 0 if self.schedule is None else math.ceil(self.schedule.end * total)
        if index == 0 or index > max(self.last_update * total, end):
            return False
        return index % self.update_interval == 0 or index == min(end, total - 1)

    @torch.no_grad()
    def after_backward(self, step: Step) -> None:
        if self.is_update(step.index, step.total):
            if self.schedule is not None:
                is_last = step.index == step.total - 1
                self.set_progress(1.0 if is_last else step.index / step.total)
            self.update(int(self.replaced_fraction(step) * self.num_edges), step)
            self.weight.grad = None
        self._set_next(self.is_update(step.index + 1, step.total))

    def update(self, count: int, step: Step) -> None:
        """Drop and grow.

        Args:
            count: number of edges that are replaced.
            step: the current training step.
        """
        in_use = self.mask != 0
        num_in_use = int(in_use.sum())
        count = min(count, self.num_edges, self.num_potential - self.num_edges)
        if not self.may_return:  # enough edges that were not in use must be left
            count = min(count, self.num_potential - num_in_use)
        kept = self.keep(in_use, min(self.num_edges - count, num_in_use), step)
        candidates = self.within_scope(~kept if self.may_return else ~(kept | in_use))
        grown = self.grow(kept, candidates, self.num_edges - int(kept.sum()))
        new = grown & ~in_use
        self.weight.masked_fill_(new, 0)
        step.reset_optimizer_state(self.weight, new)
        self.mask.copy_(kept | grown)

    def follow_schedule(self, step: Step) -> None:
        """Does nothing: only `update` changes the number of edges."""

    def _set_next(self, is_update: bool) -> None:
        self.next_is_update.fill_(is_update)  # for checkpoints; reading it would wait for a GPU
        self.gradient = "all" if self.reads_all_gradients and is_update else "used"

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._set_next(bool(self.next_is_update))
