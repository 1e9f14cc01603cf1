"""Dense products: few dead rows and columns are left after compaction, so zeros cost little."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DenseProduct(nn.Module):
    """A matrix product with all entries, zeros included."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.contiguous())

    def forward(self, sources: Tensor) -> Tensor:
        return torch.mm(self.weight, sources)
