"""Products on a GPU by a Triton kernel: bias and ReLU are part of it. Not measured on a GPU yet."""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from genutil.errors import UserError
from models.fast_eval.engines.csr import compressed_rows

log = logging.getLogger(__name__)

BLOCK = 256
"""Pixels of one target that a program of the kernel adds up."""


class TritonProduct(nn.Module):
    """Each target adds up the maps of its sources, edge by edge.

    Raises:
        UserError: Triton is not installed, or the weights are not on a GPU (nor is TRITON_INTERPRET=1 set).
    """

    starts: Tensor
    columns: Tensor
    weights: Tensor
    zeros: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        _load_kernel()
        _check_device(weight)
        starts, columns, weights = compressed_rows(weight)
        self.register_buffer("starts", starts)
        self.register_buffer("columns", columns)
        self.register_buffer("weights", weights)
        self.register_buffer("zeros", weight.new_zeros(len(weight)))

    def forward(self, sources: Tensor) -> Tensor:
        return self.fused(sources, self.zeros, rectified=False)

    def fused(self, sources: Tensor, bias: Tensor, rectified: bool) -> Tensor:
        """The product, the bias and ReLU in one pass; see FusedProduct."""
        _check_device(sources)
        targets, pixels = len(self.starts) - 1, sources.shape[1]
        result = sources.new_empty(targets, pixels)
        if result.numel():
            bias = bias.reshape(targets, -1).contiguous()
            _load_kernel().gather_product[(-(-pixels // BLOCK), targets)](
                sources.contiguous(),
                self.starts,
                self.columns,
                self.weights,
                bias,
                result,
                pixels,
                bias.shape[1],
                RECTIFIED=rectified,
                BLOCK=BLOCK,
            )
        return result


class FastestProduct(nn.Module):
    """Of some products the one that was fastest for the first maps of a size; for GPUs.

    Args:
        candidates: products of the same weights.
    """

    def __init__(self, *candidates: nn.Module) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(candidates)
        self._chosen: dict[int, nn.Module] = {}

    def forward(self, sources: Tensor) -> Tensor:
        def run(product: nn.Module) -> Tensor:
            return product(sources)  # type: ignore[no-any-return]

        return run(self._fastest(sources, run))

    def fused(self, sources: Tensor, bias: Tensor, rectified: bool) -> Tensor:
        """By the fastest product, in one pass or three; see FusedProduct."""

        def run(product: nn.Module) -> Tensor:
            return _fused(product, sources, bias, rectified)

        return run(self._fastest(sources, run))

    def _fastest(self, sources: Tensor, run: Callable[[nn.Module], Tensor]) -> nn.Module:
        pixels = sources.shape[1]
        if pixels not in self._chosen:
            self._chosen[pixels] = min(self.candidates, key=lambda product: _milliseconds(run, product))
        return self._chosen[pixels]


def _fused(product: nn.Module, sources: Tensor, bias: Tensor, rectified: bool) -> Tensor:
    if isinstance(product, TritonProduct):
        return product.fused(sources, bias, rectified)
    maps: Tensor = product(sources)
    by_image = maps.view(len(maps), -1, bias[0].numel()) if bias[0].numel() > 1 else maps
    by_image.add_(bias.view(len(maps), 1, -1) if by_image.dim() == 3 else bias.view(-1, 1))
    return maps.relu_() if rectified else maps


def _milliseconds(run: Callable[[nn.Module], Tensor], product: nn.Module, repeats: int = 5) -> float:
    """On a GPU; infinite for a kernel that Triton cannot compile there."""
    try:
        for _ in range(2):  # the first call compiles
            run(product)
    except Exception as error:  # what Triton and the compilers that it needs raise has no common type
        if not isinstance(product, TritonProduct):
            raise
        log.warning("engine auto goes on without Triton: %s", error)
        return math.inf
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    for _ in range(repeats):
        run(product)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def _load_kernel() -> Any:
    try:
        return importlib.import_module("models.fast_eval.engines.gather")
    except ModuleNotFoundError as error:
        raise UserError(
            "engine triton needs Triton, which torch's CUDA builds for Linux bring along: pip install triton"
        ) from error


def _check_device(tensor: Tensor) -> None:
    if tensor.device.type == "cuda":
        return
    import triton

    if not triton.knobs.runtime.interpret:
        raise UserError(
            f"engine triton runs on a GPU, and the network is on {tensor.device}. Run with --gpus 0, or take "
            "--engine native"
        )
