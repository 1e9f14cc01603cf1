"""The faster of dense products and compressed rows, chosen for each product by its size and density."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from wirings.engines.csr import CSRProduct
from wirings.engines.dense import DenseProduct
from wirings.engines.triton import FastestProduct, TritonProduct
from wirings.errors import WiringError

_log = logging.getLogger(__name__)

SPARSE_BELOW = 0.12
"""Density of equal times: 0.1 to 0.2 on two x86 cores, for 49 to 3,136 pixels."""
MIN_ENTRIES = 64 * 64
"""With fewer entries dense products were faster at every density."""


def auto_product(weight: Tensor) -> DenseProduct | CSRProduct | FastestProduct:
    """A product for these weights, (targets, sources); on a GPU the faster of dense and Triton."""
    density = int(torch.count_nonzero(weight)) / max(weight.numel(), 1)
    if weight.device.type == "cuda":
        return _on_gpu(weight)
    sparse = density < SPARSE_BELOW and weight.numel() > MIN_ENTRIES
    has_mkl: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return CSRProduct(weight) if sparse and has_mkl else DenseProduct(weight)


def _on_gpu(weight: Tensor) -> DenseProduct | FastestProduct:
    dense = DenseProduct(weight)
    try:
        return FastestProduct(dense, TritonProduct(weight))
    except WiringError as error:
        _log.info("products are dense: %s", error)
        return dense
