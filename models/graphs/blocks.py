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
        whole = gradients[0].new_empty(ctx.shape)
        for (rows, columns), gradient in zip(ctx.pieces, gradients, strict=True):
            whole[: rows.start, columns] = 0
            whole[rows.stop :, columns] = 0
            whole[rows, columns] = gradient
        return whole, None, None


def read_blocks(weight: Tensor, pieces: Sequence[Piece], mask: Tensor | None = None) -> tuple[Tensor, ...]:
    """`weight[rows, columns]` of each piece; with a mask zero where it is false, straight-through.

    Args:
        weight: (targets, sources, 1, 1).
        pieces: their columns follow each other and cover the matrix.
        mask: boolean, of the weight's shape. The gradient reaches all entries of a piece all the same.

    Raises:
        ValueError: the pieces leave out columns or overlap.
    """
    ends = [0, *(columns.stop for _, columns in pieces)]
    if [columns.start for _, columns in pieces] != ends[:-1] or ends[-1] != weight.shape[1]:
        raise ValueError(f"the pieces' columns must cover all {weight.shape[1]} one after the other")
    blocks: tuple[Tensor, ...] = _Blocks.apply(weight, mask, pieces)
    return blocks
