"""Products by C++ kernels that are compiled on this machine; see wirings/native."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wirings.engines.csr import compressed_rows
from wirings.native.build import load_kernels


class NativeProduct(nn.Module):
    """A product with a wiring's edges in compressed rows, on the CPU in float32.

    Raises:
        WiringError: the kernels could not be compiled.
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
        result: Tensor = torch.ops.wirings_native.product(
            sources.contiguous(), self.starts, self.columns, self.weights, torch.get_num_threads()
        )
        return result
