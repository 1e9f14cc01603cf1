"""The parts of a weight matrix that a static graph reads, one for each group of nodes that send together.

Autograd's own slices would each give back a gradient as large as the whole matrix, to be filled with zeros
and added to the others; here all of them are written into one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Piece = tuple[slice, slice]
"""(rows, columns); both have a start and a stop."""


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor | None, pieces: Sequence[Piece]) -> tuple[Tensor, ...]:
        ctx.pieces, ctx.shape = pieces, weight.shape
        if mask is None:
            return tuple(weight[piece].contiguous() for piece in pieces)
        zero = weight.new_zeros(())
        return tuple(torch.where(mask[piece], weight[piece], zero) for piece in pieces)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        whole = gradients[0].new_zeros(ctx.shape)
        for piece, gradient in zip(ctx.pieces, gradients, strict=True):
            whole[piece] = gradient
        return whole, None, None


def read_blocks(weight: Tensor, pieces: Sequence[Piece], mask: Tensor | None = None) -> tuple[Tensor, ...]:
    """`weight[rows, columns]` of each piece; with a mask zero where it is false, straight-through.

    Args:
        weight: (targets, sources, 1, 1).
        pieces: rectangles that do not overlap.
        mask: boolean, of the weight's shape. The gradient reaches all entries of a piece all the same.
    """
    blocks: tuple[Tensor, ...] = _Blocks.apply(weight, mask, pieces)
    return blocks
