"""Blocks of a weight matrix that a static graph reads, one for each group of target nodes.

Each of autograd's own slices would return a gradient of the size of the matrix, filled with zeros and added
to the others; here all of them are written into one. Where few edges are in use, a block is a list of edges,
and the time of its product is proportional to their number.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wirings.selection import EdgeSelection, Gradient, apply_selection

_SPARSE_BELOW = 0.045
"""Largest density at which products edge by edge are faster, including the transposition of the maps."""
_SPARSE_FROM = 512
"""Smallest number of sources at which they are faster: the time of the transposition is independent of it."""


Piece = tuple[slice, slice]
"""A rectangle of a weight matrix, as (rows, columns); both have a start and a stop."""
Integers = NDArray[Any]


@contextlib.contextmanager
def _no_sparse_warnings() -> Iterator[None]:
    """torch warns that its sparse matrices are a beta version."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor|invariant checks)")
        yield


class EdgeMatrix:
    """A sparse matrix, by its entries in row-major order.

    Args:
        rows, columns: of the entries.
        values: the entries.
        shape: (targets, sources).
    """

    def __init__(self, rows: Integers, columns: Integers, values: Tensor, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._rows, self._columns, self._values = rows, columns, values

    def transposed(self) -> EdgeMatrix:
        # Radix sort, which NumPy has for 16 bits, keeps the order within a column.
        narrow = self._columns.astype(np.uint16) if self.shape[1] <= 1 << 16 else self._columns
        order = np.argsort(narrow, kind="stable")
        values = self._values[torch.from_numpy(order)]
        return EdgeMatrix(self._columns[order], self._rows[order], values, self.shape[::-1])

    def product(self, sources: Tensor, result: Tensor, add: bool = False) -> Tensor:
        """The product with (sources, pixels), written to `result`, (targets, pixels), or added to it."""
        return torch.addmm(result, self._compressed(), sources, beta=int(add), out=result)

    def products_of_rows(self, targets: Tensor, sources: Tensor) -> Tensor:
        """For each entry, the scalar product of its target's and its source's row: the gradient of the entry.

        Args:
            targets: (targets, pixels), contiguous.
            sources: (sources, pixels), contiguous.

        Returns:
            (entries), in their order.
        """
        with _no_sparse_warnings():
            products = torch.sparse.sampled_addmm(self._compressed(), targets, sources.t(), beta=0)
        values: Tensor = products.values()
        return values

    def _compressed(self) -> Tensor:
        first = np.searchsorted(self._rows, np.arange(self.shape[0] + 1)).astype(np.int32)
        with _no_sparse_warnings():
            return torch.sparse_csr_tensor(
                crow_indices=torch.from_numpy(first),
                col_indices=torch.from_numpy(self._columns.astype(np.int32)),
                values=self._values,
                size=self.shape,
                check_invariants=False,
            )


class EdgeList:
    """Rows, columns and weights of the edges in use, in row-major order.

    Args:
        weight: (targets, sources, 1, 1), on the CPU.
        indices: of the edges in use in the flattened weight, ascending.
    """

    def __init__(self, weight: Tensor, indices: Tensor) -> None:
        self._indices = indices
        num_rows, num_columns = weight.shape[:2]
        flat = indices.numpy()
        self._rows = flat // num_columns
        self._columns = flat - self._rows * num_columns
        self._values = weight.detach().flatten()[indices]
        self._first = np.searchsorted(self._rows, np.arange(num_rows + 1))

    def piece(self, piece: Piece) -> tuple[EdgeMatrix, Tensor]:
        """The edges of a rectangle, with rows and columns relative to its corner; their indices in the
        flattened weight.
        """
        rows, columns = piece
        edges = slice(self._first[rows.start], self._first[rows.stop])
        column = self._columns[edges] - columns.start
        inside = np.flatnonzero((column >= 0) & (column < columns.stop - columns.start))
        selected = torch.from_numpy(inside)
        matrix = EdgeMatrix(
            self._rows[edges][inside] - rows.start,
            column[inside],
            self._values[edges][selected],
            (rows.stop - rows.start, columns.stop - columns.start),
        )
        return matrix, self._indices[edges][selected]


class Block(NamedTuple):
    """The weights between some sources and some targets.

    Attributes:
        weight: (targets, sources, 1, 1), zero where no edge is in use. With `edges`, a tensor without values
            and memory, which represents all entries in autograd's graph.
        edges: the edges in use, if there are few; else None.
        edge_weights: (edges), which represents the edges in autograd's graph if the gradient reaches only
            them; else None.
    """

    weight: Tensor
    edges: EdgeMatrix | None = None
    edge_weights: Tensor | None = None

    @property
    def differentiable(self) -> Tensor:
        """The tensor that represents the block in autograd's graph."""
        return self.weight if self.edge_weights is None else self.edge_weights


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        pieces: Sequence[Piece],
        selection: EdgeSelection | None,
        gradient: Gradient,
        has_values: bool,
    ) -> tuple[Tensor, ...]:
        ctx.pieces, ctx.shape = pieces, weight.shape
        ctx.mask = None if selection is None or gradient == "all" else selection.mask()
        if not has_values:
            zero = weight.new_zeros(())
            return tuple(zero.expand(weight[piece].shape) for piece in pieces)
        if selection is None:
            return tuple(weight[piece].contiguous() for piece in pieces)
        mask, zero = selection.mask(), weight.new_zeros(())
        return tuple(torch.where(mask[piece], weight[piece], zero) for piece in pieces)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        total = gradients[0].new_zeros(ctx.shape)
        zero = gradients[0].new_zeros(())
        for piece, gradient in zip(ctx.pieces, gradients, strict=True):
            if ctx.mask is None:
                total[piece] = gradient
            else:
                torch.where(ctx.mask[piece], gradient, zero, out=total[piece])
        return total, None, None, None, None


class _EdgeWeights(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, indices: Sequence[Tensor]) -> tuple[Tensor, ...]:
        ctx.indices, ctx.shape = indices, weight.shape
        flat = weight.flatten()
        return tuple(flat[own] for own in indices)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        total = gradients[0].new_zeros(ctx.shape)
        for indices, gradient in zip(ctx.indices, gradients, strict=True):
            total.view(-1)[indices] = gradient
        return total, None


def read_blocks(
    weight: Tensor,
    pieces: Sequence[Piece],
    selection: EdgeSelection | None = None,
    gradient: Gradient = "all",
) -> tuple[Block, ...]:
    """`weight[rows, columns]` of each piece, zero where it is not selected.

    Args:
        weight: (targets, sources, 1, 1).
        pieces: rectangles that do not overlap.
        selection: the edges in use; None: all of them.
        gradient: whether it reaches all entries of a piece or those in use.
    """
    if selection is not None and selection.is_full:
        selection = None
    if torch.compiler.is_compiling():
        used = weight if selection is None else apply_selection(weight, selection, gradient)
        return tuple(Block(used[piece]) for piece in pieces)
    if selection is None or not _multiplies_edges(weight, selection):
        return tuple(map(Block, _Blocks.apply(weight, pieces, selection, gradient, True)))
    edges = EdgeList(weight, selection.indices())
    matrices, indices = zip(*map(edges.piece, pieces), strict=True)
    if gradient == "all":
        return tuple(map(Block, _Blocks.apply(weight, pieces, selection, gradient, False), matrices))
    without_values = (weight.new_zeros(()).expand(weight[piece].shape) for piece in pieces)
    return tuple(map(Block, without_values, matrices, _EdgeWeights.apply(weight, indices)))


def _multiplies_edges(weight: Tensor, selection: EdgeSelection) -> bool:
    """Whether products edge by edge are available and faster than dense ones."""
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.float64):
        return False
    few = selection.count < _SPARSE_BELOW * weight.numel() and weight.shape[1] >= _SPARSE_FROM
    has_mkl: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return few and has_mkl and not torch.is_autocast_enabled("cpu")
