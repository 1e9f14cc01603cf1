"""The parts of a weight matrix that a static graph reads, one for each group of nodes that receive together.

Autograd's own slices would each give back a gradient as large as the whole matrix, to be filled with zeros
and added to the others; here all of them are written into one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.graphs.edgelist import EdgeList, EdgeMatrix, Piece
from models.graphs.topk import Selection, as_mask, chosen, straight_through

_SPARSE_BELOW = 0.045
"""Density below which products edge by edge pay for bringing the maps into the order they need,"""
_SPARSE_FROM = 512
"""given at least so many sources: the order costs the same for few sources as for many."""


class Block(NamedTuple):
    """The weights with which some nodes receive from others.

    Attributes:
        weight: (targets, sources, 1, 1), zero where no edge is in use. Where `edges` are given it holds no
            values (and no memory): it stands for the block in autograd.
        edges: the edges in use, where there are few.
    """

    weight: Tensor
    edges: EdgeMatrix | None = None


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, pieces: Sequence[Piece], mask: Tensor | None, has_values: bool
    ) -> tuple[Tensor, ...]:
        ctx.pieces, ctx.shape = pieces, weight.shape
        if not has_values:
            nothing = weight.new_zeros(())
            return tuple(nothing.expand(weight[piece].shape) for piece in pieces)
        if mask is None:
            return tuple(weight[piece].contiguous() for piece in pieces)
        return tuple(chosen(weight[piece], mask[piece]) for piece in pieces)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        whole = gradients[0].new_zeros(ctx.shape)
        for piece, gradient in zip(ctx.pieces, gradients, strict=True):
            whole[piece] = gradient
        return whole, None, None, None


def read_blocks(
    weight: Tensor, pieces: Sequence[Piece], selection: Selection | None = None
) -> tuple[Block, ...]:
    """`weight[rows, columns]` of each piece; with a selection zero where not chosen, straight-through.

    Args:
        weight: (targets, sources, 1, 1).
        pieces: rectangles that do not overlap.
        selection: which entries are chosen. The gradient reaches all entries of a piece all the same.
    """
    if torch.compiler.is_compiling():
        used = weight if selection is None else straight_through(weight, selection)
        return tuple(Block(used[piece]) for piece in pieces)
    if selection is None or selection.dtype == torch.bool:
        return tuple(map(Block, _Blocks.apply(weight, pieces, selection, True)))
    if not _multiplies_edges(weight, selection.numel()):
        return read_blocks(weight, pieces, as_mask(selection, weight.shape))
    edges = EdgeList(weight, selection)
    stand_ins = _Blocks.apply(weight, pieces, None, False)
    return tuple(map(Block, stand_ins, map(edges.piece, pieces)))


def _multiplies_edges(weight: Tensor, num_edges: int) -> bool:
    """Whether the products of single edges are there and faster than those of whole matrices."""
    few = num_edges < _SPARSE_BELOW * weight.numel() and weight.shape[1] >= _SPARSE_FROM
    has_products = weight.dtype in (torch.float32, torch.float64) and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return few and has_products and not torch.is_autocast_enabled("cpu")
