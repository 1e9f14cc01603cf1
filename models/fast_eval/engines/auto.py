"""The faster of dense products and compressed rows, chosen for each product by its size and density."""

from __future__ import annotations

import torch
from torch import Tensor

from models.fast_eval.engines.csr import CSRProduct
from models.fast_eval.engines.dense import DenseProduct

SPARSE_BELOW = 0.12
"""Density at which both take the same time: 0.1 to 0.2 on two x86 cores, for 49 to 3,136 pixels."""
SMALLEST = 64 * 64
"""With fewer entries dense products won at every density."""


def auto_product(weight: Tensor) -> DenseProduct | CSRProduct:
    """A product for these weights, (targets, sources). On a GPU, not measured yet, it is dense."""
    density = int(torch.count_nonzero(weight)) / max(weight.numel(), 1)
    sparse = density < SPARSE_BELOW and weight.numel() > SMALLEST
    has_mkl: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return CSRProduct(weight) if sparse and has_mkl and weight.device.type == "cpu" else DenseProduct(weight)
