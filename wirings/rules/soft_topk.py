"""`soft_topk`: soft masks that become hard during the training.

Source: Tai, Tian, Lim, "Spartan: Differentiable Sparsity via Regularized Transportation", NeurIPS 2022. The
rule follows from its optimization problem with equal costs; magnitudes are relative to their mean here, so
that the sharpness has one meaning in all layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wirings.densities import Cubic, DensitySchedule
from wirings.errors import WiringError
from wirings.rules.base import EdgeScope, PotentialEdges, RankedEdges, Step
from wirings.selection import EdgeSelection

_ITERATIONS = 30
_TOLERANCE = 1e-5


class SoftTopEdges(RankedEdges):
    """`graph: soft_topk`: the strongest edges, multiplied with a soft mask m, through which the gradient
    reaches all weights.

    m = sigmoid(β · (|w| / mean|w| − μ)), where μ makes the sum of m the number of edges in use. β rises
    linearly from `sharpness[0]` to `sharpness[1]`. The edges that are not among the strongest are set to zero
    with a straight-through gradient. After `freeze_at`, the wiring is fixed and m is part of the weights.

    Args:
        potential: the potential edges.
        num_edges: number of edges in use at the end.
        schedule: number of edges in use during the training; by default all at first, and the budget after a
            fifth of it.
        edge_scope: see EdgeScope.
        sharpness: first and last β.
        freeze_at: fraction of the training after which the wiring is fixed, 0..1.

    Raises:
        WiringError: an option is out of range.
    """

    ranks_all_layers = False  # the soft masks of each layer add up to its own budget
    default_schedule = Cubic(end=0.2)
    progress: Tensor
    frozen: Tensor
    frozen_mask: Tensor

    def __init__(
        self,
        potential: PotentialEdges,
        num_edges: int,
        schedule: DensitySchedule | None = None,
        edge_scope: EdgeScope = "all",
        sharpness: tuple[float, float] = (1.0, 20.0),
        freeze_at: float = 0.8,
    ) -> None:
        super().__init__(potential, num_edges, schedule, edge_scope)
        if not min(sharpness) > 0 or not 0 <= freeze_at <= 1:
            raise WiringError(
                "sharpness must be above 0 and freeze_at within 0..1, "
                f"got sharpness {tuple(sharpness)}, freeze_at {freeze_at}"
            )
        self.sharpness, self.freeze_at = tuple(sharpness), freeze_at
        self.register_buffer("progress", torch.tensor(0.0))
        self.register_buffer("frozen", torch.tensor(False))
        self.register_buffer("frozen_mask", torch.zeros(self.weight.shape, dtype=torch.bool))
        self._is_frozen = False

    def count_gradient_edges(self, in_use: int) -> int:
        return in_use if self._is_frozen else self.potential.num_readable

    def select(self) -> EdgeSelection:
        """Select the strongest edges; once they are frozen, the frozen ones."""
        if self._is_frozen:
            return EdgeSelection.from_mask(self.frozen_mask, self.num_edges)
        return super().select()

    def forward(self) -> Tensor:
        selection = self.selection()
        if self._is_frozen:
            return self.weight * selection.mask()
        first, last = self.sharpness
        beta = first + (last - first) * self.progress
        count = self.compiled_count.to(self.weight)
        result: Tensor = _SoftMasked.apply(self.weight, selection.mask(), self.scope(), beta, count)
        return result

    @torch.no_grad()
    def after_backward(self, step: Step) -> None:
        if self._is_frozen and self.weight.grad is not None:
            self.weight.grad.masked_fill_(~self.frozen_mask, 0)

    def follow_schedule(self, step: Step) -> None:
        super().follow_schedule(step)
        progress = (step.index + 1) / step.total
        self.progress.fill_(progress)
        is_over = self.schedule is None or progress >= self.schedule.end
        if progress >= self.freeze_at and is_over and not self._is_frozen:
            self._freeze()

    @torch.no_grad()
    def _freeze(self) -> None:
        """Fix the wiring. Weights are multiplied with their soft mask: the network stays the same."""
        mask = self.selection().mask().clone()
        self.weight.copy_(torch.where(mask, self(), self.weight))
        self.frozen_mask.copy_(mask)
        self.frozen.fill_(True)
        self._is_frozen = True

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._is_frozen = bool(self.frozen)


class _SoftMasked(torch.autograd.Function):
    """Weights times their soft mask, where they are in use; the gradient is that of all soft masks."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, scope: Tensor, beta: Tensor, count: Tensor) -> Tensor:
        scale = beta / (weight.abs() * scope).sum().clamp_min(1e-30) * scope.sum()
        soft = soft_mask(weight.abs() * scale, scope, count)
        ctx.save_for_backward(weight, soft, scale)
        return weight * soft * mask

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        # The sum of the masks m is constant: a larger |w| also raises μ. The mean of |w| counts as constant.
        (gradient,), (weight, soft, scale) = gradients, ctx.saved_tensors
        slope = soft * (1 - soft)
        product = gradient * weight
        common = (product * slope).sum() / slope.sum().clamp_min(1e-30)
        return gradient * soft + scale * slope * (product - common) * weight.sign(), None, None, None, None


def soft_mask(values: Tensor, scope: Tensor, count: Tensor) -> Tensor:
    """sigmoid(values − μ) within the scope and zero elsewhere, with the μ that makes the sum `count`.

    μ is found by Newton's method within an interval that shrinks, to a relative error of 1e-5.

    Args:
        values: any shape.
        scope: boolean, of the same shape, with at least `count` true entries.
        count: the sum, a scalar.
    """
    inside = torch.where(scope, values, -torch.inf)
    low, high = values.amin() - 50, values.amax() + 50
    mu = torch.where(scope, values, 0).sum() / scope.sum()
    # On a GPU, reading the excess would be a synchronization; a compiled graph has no conditions.
    reads_excess = values.device.type == "cpu" and not torch.compiler.is_compiling()
    for _ in range(_ITERATIONS):
        soft = torch.sigmoid(inside - mu)
        excess = soft.sum() - count
        if reads_excess and abs(float(excess)) <= _TOLERANCE * float(count):
            break
        low, high = torch.where(excess > 0, mu, low), torch.where(excess > 0, high, mu)
        newton = mu + excess / (soft * (1 - soft)).sum().clamp_min(1e-30)
        mu = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
    return torch.sigmoid(inside - mu)
