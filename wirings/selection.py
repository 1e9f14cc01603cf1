"""Selections: which entries of a weight are in use, and the weight with the others set to zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wirings.errors import WiringError
from wirings.topk_cpu import Threshold

Gradient = Literal["all", "used"]
"""Which weights the gradient reaches. `all`: every weight (straight-through). `used`: the weights in use."""


class EdgeSelection:
    """The edges in use of one weight.

    They are stored as indices, a mask, or the smallest magnitude in use, and converted to another form when
    needed. A selected weight is in use even if its value is zero. A selection does not change when the weight
    does.

    Constructors: `from_mask`, `from_indices`, `from_threshold` and `full`.

    Attributes:
        shape: of the weight.
        is_full: it was made by `full`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        mask: Tensor | None = None,
        indices: Tensor | None = None,
        threshold: tuple[Tensor, Threshold] | None = None,
        count: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.shape = torch.Size(shape)
        self._mask, self._indices, self._count = mask, indices, count
        self._threshold = threshold
        self._version = None if threshold is None else _version(threshold[0])
        self._device = device
        self.is_full = mask is None and indices is None and threshold is None

    @classmethod
    def from_mask(cls, mask: Tensor, count: int | None = None) -> EdgeSelection:
        """The true entries of a mask.

        Args:
            mask: boolean, of the weight's shape, on any device.
            count: number of true entries, if known; counting them on a GPU would be a synchronization.

        Raises:
            WiringError: the mask is not boolean.
        """
        if mask.dtype != torch.bool:
            raise WiringError(f"a mask must be boolean, got {mask.dtype}; compare it with zero first")
        return cls(mask.shape, mask=mask, count=count, device=mask.device)

    @classmethod
    def from_indices(cls, indices: Tensor, shape: Sequence[int]) -> EdgeSelection:
        """The entries with these indices.

        Args:
            indices: int64, ascending, of entries of the flattened weight.
            shape: of the weight.

        Raises:
            WiringError: the indices are not int64.
        """
        if indices.dtype != torch.int64 or indices.dim() != 1:
            raise WiringError(f"indices must be int64, (edges), got {indices.dtype}, {tuple(indices.shape)}")
        return cls(shape, indices=indices, count=len(indices), device=indices.device)

    @classmethod
    def from_threshold(cls, weight: Tensor, threshold: Threshold, count: int) -> EdgeSelection:
        """The entries of `weight` (on the CPU, float32 or float64) that reach a magnitude; see Threshold."""
        return cls(weight.shape, threshold=(weight.detach(), threshold), count=count, device=weight.device)

    @classmethod
    def full(cls, shape: Sequence[int], device: torch.device | None = None) -> EdgeSelection:
        """All entries."""
        return cls(shape, count=math.prod(shape), device=device or torch.device("cpu"))

    @property
    def count(self) -> int:
        """Number of edges in use."""
        if self._count is None:
            self._count = int(self.mask().sum())
        return self._count

    @property
    def device(self) -> torch.device:
        """Device of the selection."""
        assert self._device is not None
        return self._device

    def mask(self) -> Tensor:
        """The mask of the edges in use: boolean, in the weight's shape. It must not be modified.

        Raises:
            WiringError: the weight was changed after the selection was made.
        """
        if self._mask is None:
            self._mask = self._make_mask()
        return self._mask

    def indices(self) -> Tensor:
        """The indices of the edges in use in the flattened weight: int64, (count), ascending. They must not
        be modified.

        Raises:
            WiringError: the weight was changed after the selection was made.
        """
        if self._indices is None:
            self._indices = self.mask().flatten().nonzero().flatten()
        return self._indices

    def apply(self, values: Tensor) -> Tensor:
        """A new tensor with the values where an edge is in use, and zeros elsewhere; it has no gradient.

        Args:
            values: of the weight's shape, on the selection's device: the weight itself, or its gradient.

        Raises:
            WiringError: the weight was changed after the selection was made.
        """
        if self._threshold is not None and self._is_selected_from(values):
            return _shrink(values.contiguous(), self._threshold[1])
        if self.is_full:
            return values.detach().clone()
        if self._mask is not None or self._threshold is not None:
            # Not values * mask: that gives -0.0, and NaN for an infinity that is not in use.
            return torch.where(self.mask(), values, values.new_zeros(()))
        assert self._indices is not None
        result = torch.zeros(values.shape, dtype=values.dtype, device=values.device)
        result.view(-1)[self._indices] = values.flatten()[self._indices]
        return result

    def _make_mask(self) -> Tensor:
        if self._threshold is not None:
            weight, threshold = self._threshold
            if _version(weight) != self._version:
                raise WiringError(
                    "the weight was changed after this selection was made; "
                    "call its mask() or indices() before the change, or select again"
                )
            mask = weight.contiguous().abs() >= threshold.magnitude
            mask.view(-1)[torch.from_numpy(threshold.excluded)] = False
            return mask
        if self._indices is None:
            return torch.ones(self.shape, dtype=torch.bool, device=self.device)
        mask = torch.zeros(self.shape.numel(), dtype=torch.bool, device=self._indices.device)
        mask[self._indices] = True
        return mask.view(self.shape)

    def _is_selected_from(self, values: Tensor) -> bool:
        assert self._threshold is not None
        weight = self._threshold[0]
        same = values.data_ptr() == weight.data_ptr() and values.stride() == weight.stride()
        return same and _version(values) == self._version

    def __repr__(self) -> str:
        count = "?" if self._count is None else f"{self._count:,}"
        return f"EdgeSelection({count} of {self.shape.numel():,}, shape {tuple(self.shape)})"


def _version(weight: Tensor) -> int | None:
    """torch's version counter of a tensor; None for an inference tensor, which has none."""
    return None if weight.is_inference() else weight._version


def _shrink(weight: Tensor, threshold: Threshold) -> Tensor:
    """The weights that reach the threshold, and zeros elsewhere. hardshrink excludes its limit, which is
    therefore the next smaller number.
    """
    magnitude = np.asarray(threshold.magnitude, weight.detach().numpy().dtype)
    limit = float(np.nextafter(magnitude, np.zeros_like(magnitude))) if threshold.magnitude else -1.0
    result = F.hardshrink(weight.detach(), limit)
    result.view(-1)[torch.from_numpy(threshold.excluded)] = 0
    return result


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, selection: EdgeSelection | Tensor) -> Tensor:
        if isinstance(selection, Tensor):
            return torch.where(selection, weight, weight.new_zeros(()))
        return selection.apply(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, selection: EdgeSelection) -> Tensor:
        ctx.selection = selection
        return selection.apply(weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        return ctx.selection.apply(gradients[0]), None


def straight_through(weight: Tensor, selection: EdgeSelection | Tensor) -> Tensor:
    """The weights in use, and zeros elsewhere; the gradient reaches every weight as if it were in use.

    The output is computed with the zeros, so no gradient flows through unused edges to the nodes; only the
    weights of these edges get one.

    Args:
        weight: any shape.
        selection: the edges in use, as a selection or a boolean mask.
    """
    if isinstance(selection, Tensor):
        selection = EdgeSelection.from_mask(selection)
    # torch.compile cannot trace a selection.
    mask_or_selection = selection.mask() if torch.compiler.is_compiling() else selection
    result: Tensor = _StraightThrough.apply(weight, mask_or_selection)
    return result


def masked(weight: Tensor, selection: EdgeSelection) -> Tensor:
    """The weights in use, and zeros elsewhere; the gradient reaches only the weights in use."""
    if torch.compiler.is_compiling():
        return torch.where(selection.mask(), weight, weight.new_zeros(()))
    result: Tensor = _Masked.apply(weight, selection)
    return result


def apply_selection(weight: Tensor, selection: EdgeSelection, gradient: Gradient) -> Tensor:
    """The weights in use, and zeros elsewhere.

    Args:
        weight: any shape.
        selection: the edges in use.
        gradient: `all` calls `straight_through`, `used` calls `masked`.
    """
    if selection.is_full:
        return weight
    return straight_through(weight, selection) if gradient == "all" else masked(weight, selection)
