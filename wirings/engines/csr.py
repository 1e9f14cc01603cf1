"""Compressed sparse rows, multiplied by torch (MKL on the CPU, cuSPARSE on a GPU)."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from wirings.cached_module import CachedModule


def compressed_rows(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(row starts, columns, values) of the non-zero entries; int32, int32, the weight's type."""
    rows, columns = weight.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(weight))
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return starts.int(), columns.int(), weight[rows, columns]


class CSRProduct(CachedModule):
    """A product of a CSR matrix with dense maps."""

    cached_attributes = ("_matrix",)
    starts: Tensor
    columns: Tensor
    values: Tensor
    _matrix: Tensor | None

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.shape = weight.shape
        starts, columns, values = compressed_rows(weight)
        # Buffers, so that .to(device) moves them; torch moves no sparse buffers.
        self.register_buffer("starts", starts)
        self.register_buffer("columns", columns)
        self.register_buffer("values", values)

    def reset_cache(self) -> None:
        self._matrix = None

    def forward(self, sources: Tensor) -> Tensor:
        if self._matrix is None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse (CSR tensor|invariant checks)")
                self._matrix = torch.sparse_csr_tensor(
                    self.starts, self.columns, self.values, self.shape, check_invariants=True
                )
        return torch.mm(self._matrix, sources)
