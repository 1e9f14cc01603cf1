"""Soft thresholds: weights in use that become continuous functions of the weights at the threshold."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from wirings.rules.base import RankedEdges
from wirings.selection import EdgeSelection


class _Transformed(torch.autograd.Function):
    """Values in place of the weights; the gradient passes, multiplied by a constant for unused edges."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, values: Tensor, mask: Tensor, unused_gradient: float) -> Tensor:
        ctx.mask, ctx.unused_gradient = mask, unused_gradient
        return values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        if ctx.unused_gradient != 1:
            gradient = torch.where(ctx.mask, gradient, ctx.unused_gradient * gradient)
        return gradient, None, None, None


class SoftThreshold(RankedEdges):
    """The strongest edges, whose values are functions of weight and threshold.

    The threshold is the largest magnitude that is not in use, so that all edges in use have another value
    than zero unless they are equal to it. Subclasses define `transform`.
    """

    unused_gradient = 1.0
    """Factor of the gradient of edges that are not in use."""

    @abstractmethod
    def transform(self, weight: Tensor, threshold: Tensor) -> Tensor:
        """Values of the edges in use; those of the others are not read.

        Args:
            weight: the whole weight, without gradient; zero for edges that cannot be in use.
            threshold: the largest magnitude that is not in use, a scalar.
        """

    def forward(self) -> Tensor:
        values, selection = self._values()
        result: Tensor = _Transformed.apply(self.weight, values, selection.mask(), self.unused_gradient)
        return result

    @torch.no_grad()
    def _values(self) -> tuple[Tensor, EdgeSelection]:
        selection = self.selection()
        weight = self.within_scope(self.weight)
        threshold = weight.abs().masked_fill_(selection.mask(), 0).amax()
        values = self.transform(weight, threshold)
        return torch.where(selection.mask(), values, values.new_zeros(())), selection
