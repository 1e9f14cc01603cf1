"""Dense products, zeros included; after compaction there are few dead rows and columns."""

from __future__ import annotations

import torch
from torch import Tensor

from wirings.cached_module import CachedModule


class DenseProduct(CachedModule):
    """A matrix product with all entries, zeros included; in the type of the maps."""

    cached_attributes = ("_cast",)
    weight: Tensor
    _cast: Tensor | None

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.contiguous())

    def reset_cache(self) -> None:
        self._cast = None

    def forward(self, sources: Tensor) -> Tensor:
        if sources.dtype == self.weight.dtype:
            return torch.mm(self.weight, sources)
        if self._cast is None or self._cast.dtype != sources.dtype:
            self._cast = self.weight.to(sources.dtype)
        return torch.mm(self._cast, sources)
