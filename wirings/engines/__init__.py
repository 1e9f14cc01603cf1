"""Engines, one per file: implementations of the product of a wiring's weights and its source maps."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from wirings.errors import WiringError
from wirings.names import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

Product: TypeAlias = "Callable[[Tensor], Tensor]"
"""(sources, pixels) to (targets, pixels)."""


@runtime_checkable
class FusedProduct(Protocol):
    """A product fused with a bias and ReLU."""

    def fused(self, sources: Tensor, bias: Tensor, rectified: bool) -> Tensor:
        """(sources, pixels) to (targets, pixels).

        Args:
            bias: (targets, 1, 1, 1), or (targets, 1, S, S) for each pixel of an image.
            rectified: whether ReLU follows.
        """


@runtime_checkable
class SendingProduct(Protocol):
    """A product that also applies the 3×3 filters of its targets."""

    def send(self, sources: Tensor, bias: Tensor, filters: Tensor, stride: int, result: Tensor) -> None:
        """The product, the bias, ReLU and the filters, with padding 1.

        Args:
            sources: (sources, images, S, S).
            bias: (targets, 1, 1, 1), or (targets, 1, S, S) for each pixel of an image.
            filters: (targets, 1, 3, 3).
            stride: of the filters.
            result: written: (targets, images, S', S'), contiguous, in the type of `sources`.
        """

    def filter(self, maps: Tensor, bias: Tensor | None, filters: Tensor, stride: int, result: Tensor) -> None:
        """Only the bias, ReLU and the filters, of any maps.

        Args:
            maps: (nodes, images, S, S), of any strides and any floating type.
            bias, filters, stride, result: as in `send`, for these nodes.
        """


ENGINES = {
    "auto": "wirings.engines.auto:auto_product",
    "dense": "wirings.engines.dense:DenseProduct",
    "csr": "wirings.engines.csr:CSRProduct",
    "native": "wirings.engines.native:NativeProduct",
    "triton": "wirings.engines.triton:TritonProduct",
    "dgl": "wirings.engines.dgl:DGLProduct",
}
"""Class by name, as `module:Class`: naming an engine imports neither its library nor torch."""


def find_engine(name: str) -> Callable[[Tensor], Product]:
    """The engine of this name: a function of (targets, sources) weights that returns a product.

    Raises:
        WiringError: there is no such engine.
    """
    if name not in ENGINES:
        known = ", ".join(ENGINES)
        raise WiringError(f"engine must be one of {known}, got {name}{did_you_mean(name, ENGINES)}")
    module, _, attribute = ENGINES[name].partition(":")
    engine: Callable[[Tensor], Product] = getattr(importlib.import_module(module), attribute)
    return engine
