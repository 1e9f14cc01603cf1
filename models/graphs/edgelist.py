"""The edges in use of one wired layer as a list, and the products that take as long as there are edges."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Piece = tuple[slice, slice]
"""(rows, columns) of a weight matrix; both have a start and a stop."""
Integers = NDArray[Any]


class EdgeMatrix:
    """A sparse matrix, in compressed rows.

    Args:
        rows, columns: places of its entries, row by row.
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

    def _compressed(self) -> Tensor:
        first = np.searchsorted(self._rows, np.arange(self.shape[0] + 1)).astype(np.int32)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse (CSR tensor|invariant checks)")
            return torch.sparse_csr_tensor(
                crow_indices=torch.from_numpy(first),
                col_indices=torch.from_numpy(self._columns.astype(np.int32)),
                values=self._values,
                size=self.shape,
                check_invariants=False,
            )


class EdgeList:
    """Rows, columns and weights of the edges in use, row by row.

    Args:
        weight: (targets, sources, 1, 1), on the CPU.
        places: of the edges in use in the flattened weight, rising.
    """

    def __init__(self, weight: Tensor, places: Tensor) -> None:
        num_rows, num_columns = weight.shape[:2]
        where = places.numpy()
        self._rows = where // num_columns
        self._columns = where - self._rows * num_columns
        self._values = weight.detach().flatten()[places]
        self._first = np.searchsorted(self._rows, np.arange(num_rows + 1))

    def piece(self, piece: Piece) -> EdgeMatrix:
        """The edges of a rectangle; rows and columns count from its corner."""
        rows, columns = piece
        part = slice(self._first[rows.start], self._first[rows.stop])
        column = self._columns[part] - columns.start
        inside = np.flatnonzero((column >= 0) & (column < columns.stop - columns.start))
        return EdgeMatrix(
            self._rows[part][inside] - rows.start,
            column[inside],
            self._values[part][torch.from_numpy(inside)],
            (rows.stop - rows.start, columns.stop - columns.start),
        )
