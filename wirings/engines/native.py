"""Products by the native engine, which is compiled on this machine; see wirings/native."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wirings.engines.csr import compressed_rows
from wirings.native.build import load_kernels


class NativeProduct(nn.Module):
    """A product with a wiring's edges in compressed rows, on the CPU in float32.

    Raises:
        WiringError: the library could not be compiled.
    """

    starts: Tensor
    columns: Tensor
    weights: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        load_kernels()
        starts, columns, weights = compressed_rows(weight)
        self.register_buffer("starts", starts)
        self.register_buffer("columns", columns)
        self.register_buffer("weights", weights)

    def forward(self, sources: Tensor) -> Tensor:
        result = sources.new_empty(len(self.starts) - 1, sources.shape[1])
        load_kernels().product(
            self.starts, self.columns, self.weights, sources.contiguous(), result, torch.get_num_threads()
        )
        return result
