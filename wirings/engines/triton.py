"""Products on a GPU by Triton kernels, with bias, ReLU and 3×3 filters. Not measured on a GPU yet."""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wirings.cached_module import CachedModule
from wirings.engines import SendingProduct
from wirings.engines.slices import SLICE, UNROLL, slice_edges
from wirings.engines.tuning import can_measure, fastest, milliseconds
from wirings.errors import MissingPackageError, WiringError
from wirings.layout import depthwise

_log = logging.getLogger(__name__)

_MAX_PIXELS = 2**31
"""Offsets in the maps of one node are 32-bit integers."""


class Tiling(NamedTuple):
    """Division of a kernel into programs.

    Attributes:
        targets: of a tile, 1 to SLICE, a power of two.
        block: pixels of a tile.
        warps: of a program.
        span: consecutive tiles of a program; the later ones read their sources from the L1 cache.
        rows: rows of an image's filtered map that a program computes at a time; 0: all.
    """

    targets: int
    block: int
    warps: int
    span: int = 1
    rows: int = 0


PRODUCTS = (
    Tiling(4, 128, 4),
    Tiling(1, 256, 4),
    Tiling(8, 64, 4),
    Tiling(4, 512, 8),
    Tiling(8, 64, 4, span=16),
)
SENDING: tuple[Tiling | None, ...] = (
    Tiling(4, 256, 8),
    Tiling(1, 256, 4),
    Tiling(4, 64, 4),
    None,
    Tiling(8, 64, 4, span=8),
    Tiling(1, 256, 4, rows=4),
    Tiling(4, 256, 8, rows=8),
)
"""None: separate kernels for the product and the filters."""
BLOCKS = (256, 1024)
"""Pixels of a program that filters."""


class TritonProduct(CachedModule):
    """Each target sums the maps of its sources, edge by edge, in float32 for maps of 16 bits.

    The first call for a size of maps measures some tilings (wirings.engines.tuning), all of which give the
    same bits. Later calls have the same launches and no synchronization, so that they can be captured in a
    CUDA graph. While a graph is captured nothing is measured, so call once before.

    Raises:
        MissingPackageError: Triton is not installed.
        WiringError: the weights are not on a GPU (nor is TRITON_INTERPRET=1 set).
    """

    cached_attributes = ("_tilings",)
    order: Tensor
    counts: Tensor
    offsets: Tensor
    columns: Tensor
    weights: Tensor
    zeros: Tensor
    _tilings: dict[tuple[object, ...], Any]

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        load_kernels()
        _check_device(weight)
        self.num_targets = len(weight)
        slices = slice_edges(weight)
        for name, value in slices._asdict().items():
            self.register_buffer(name, value)
        self.register_buffer("zeros", slices.weights.new_zeros(len(weight)))

    def reset_cache(self) -> None:
        self._tilings = {}

    def forward(self, sources: Tensor) -> Tensor:
        return self.fused(sources, self.zeros, rectified=False)

    def fused(self, sources: Tensor, bias: Tensor, rectified: bool) -> Tensor:
        """The product, the bias and ReLU in one pass; see FusedProduct."""
        _check_device(sources)
        sources = sources.contiguous()
        result = sources.new_empty(self.num_targets, sources.shape[1])
        if result.numel():

            def run(tiling: Tiling) -> None:
                self._multiply(sources, bias, rectified, result, tiling)

            self._run_fastest(("fused", *_size(sources)), PRODUCTS, run)
        return result

    def send(self, sources: Tensor, bias: Tensor, filters: Tensor, stride: int, result: Tensor) -> None:
        """The product and the filters in one kernel, or in two if that is faster; see SendingProduct."""
        _check_device(sources)
        sources = sources.contiguous()
        if result.numel():

            def run(tiling: Tiling | None) -> None:
                if tiling is None:
                    maps = self.fused(sources.flatten(1), bias, rectified=True)
                    shape = (self.num_targets, *sources.shape[1:])
                    self.filter(maps.view(shape), None, filters, stride, result)
                else:
                    self._multiply_and_filter(sources, bias, filters, stride, result, tiling)

            self._run_fastest(("send", stride, *_size(sources)), SENDING, run)

    def filter(self, maps: Tensor, bias: Tensor | None, filters: Tensor, stride: int, result: Tensor) -> None:
        """See SendingProduct."""
        _check_device(maps)
        if result.numel():

            def run(block: int) -> None:
                self._filter(maps, bias, filters, stride, result, block)

            self._run_fastest(("filter", stride, *_size(maps), maps.stride()), BLOCKS, run)

    def _run_fastest(
        self, key: tuple[object, ...], options: Sequence[Any], run: Callable[[Any], object]
    ) -> None:
        if key not in self._tilings and can_measure(self.weights.device):
            self._tilings[key] = fastest(options, run)
        run(self._tilings.get(key, options[0]))

    def _edges(self) -> tuple[Tensor, ...]:
        return self.order, self.counts, self.offsets, self.columns, self.weights

    def _multiply(
        self, sources: Tensor, bias: Tensor, rectified: bool, result: Tensor, tiling: Tiling
    ) -> None:
        pixels = sources.shape[1]
        bias, row, step = _strided(bias, self.num_targets)
        groups = -(-self.num_targets // tiling.targets)
        grid = (-(-pixels // tiling.block), -(-groups // tiling.span))
        load_kernels().gather_product[grid](
            sources, *self._edges(), bias, result, pixels, row, row, step, int(rectified), groups,
            tiling.span,
            TARGETS=tiling.targets, BLOCK=tiling.block, SLICE=SLICE, UNROLL=UNROLL, num_warps=tiling.warps,
        )  # fmt: skip

    def _multiply_and_filter(
        self, sources: Tensor, bias: Tensor, filters: Tensor, stride: int, result: Tensor, tiling: Tiling
    ) -> None:
        bias, row, step = _strided(bias, self.num_targets)
        images, height, width = sources.shape[1:]
        rows = min(tiling.rows or result.shape[2], result.shape[2])
        row_blocks = -(-result.shape[2] // rows)
        groups = -(-self.num_targets // tiling.targets)
        spans = -(-groups // tiling.span)
        grid = (min(images * row_blocks, max(1, _programs_at_once(sources.device) // spans)), spans)
        scratch_size = min((rows - 1) * stride + 3, height) * width
        scratch = sources.new_empty(grid[0] * grid[1] * tiling.targets * scratch_size)
        load_kernels().gather_filter[grid](
            sources, *self._edges(), bias, filters, scratch, result, images, height, width, *result.shape[2:],
            stride, row, step, groups, tiling.span, rows, row_blocks, scratch_size,
            TARGETS=tiling.targets, BLOCK=tiling.block, SLICE=SLICE, UNROLL=UNROLL, num_warps=tiling.warps,
        )  # fmt: skip

    def _filter(
        self, maps: Tensor, bias: Tensor | None, filters: Tensor, stride: int, result: Tensor, block: int
    ) -> None:
        nodes, images, height, width = maps.shape
        if maps.stride()[2:] != (width, 1):
            maps = maps.contiguous()
        bias, row, step = (self.zeros, 0, 0) if bias is None else _strided(bias, nodes)
        grid = (-(-result[0].numel() // block), nodes)
        load_kernels().filter_maps[grid](
            maps, bias, filters, result, images, height, width, *result.shape[2:], stride, row, step,
            *maps.stride()[:2], BLOCK=block, num_warps=4,
        )  # fmt: skip


class FastestProduct(CachedModule):
    """The fastest of several products, measured with the first maps of each size; for GPUs.

    Products round differently, so the selection changes the logits by rounding. It is made once per size, and
    never while a CUDA graph is captured.

    Args:
        candidates: products of the same weights; the first one runs everywhere.
    """

    cached_attributes = ("_fastest_products", "_fastest_options")
    _fastest_products: dict[int, nn.Module]
    _fastest_options: dict[tuple[object, ...], int]

    def __init__(self, *candidates: nn.Module) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(candidates)

    def reset_cache(self) -> None:
        self._fastest_products, self._fastest_options = {}, {}

    def forward(self, sources: Tensor) -> Tensor:
        def run(product: nn.Module) -> Tensor:
            return product(sources)  # type: ignore[no-any-return]

        return run(self._fastest(sources, run))

    def fused(self, sources: Tensor, bias: Tensor, rectified: bool) -> Tensor:
        """The fastest product, fused or not; see FusedProduct."""

        def run(product: nn.Module) -> Tensor:
            return _fused(product, sources, bias, rectified)

        return run(self._fastest(sources, run))

    def send(self, sources: Tensor, bias: Tensor, filters: Tensor, stride: int, result: Tensor) -> None:
        """The fastest product with the fastest filters; see SendingProduct."""
        options: list[Callable[[], None]] = []
        sending = [product for product in self.candidates if isinstance(product, SendingProduct)]
        for product in self.candidates:
            if isinstance(product, SendingProduct):
                options.append(partial(product.send, sources, bias, filters, stride, result))
                continue
            for send in (filter_by_torch, *(other.filter for other in sending)):
                options.append(partial(_multiply_then, product, send, sources, bias, filters, stride, result))
        self._run_fastest(("send", stride, *_size(sources)), options)

    def filter(self, maps: Tensor, bias: Tensor | None, filters: Tensor, stride: int, result: Tensor) -> None:
        """The filters of torch or of a product; see SendingProduct."""
        sending = [product for product in self.candidates if isinstance(product, SendingProduct)]
        filterings = (filter_by_torch, *(product.filter for product in sending))
        options = [partial(run, maps, bias, filters, stride, result) for run in filterings]
        self._run_fastest(("filter", stride, *_size(maps), maps.stride()), options)

    def _run_fastest(self, key: tuple[object, ...], options: Sequence[Callable[[], None]]) -> None:
        if key not in self._fastest_options and len(options) > 1 and can_measure(next(self.buffers()).device):
            self._fastest_options[key] = fastest(
                range(len(options)), lambda index: options[index](), budget=math.inf
            )
        options[self._fastest_options.get(key, 0)]()

    def _fastest(self, sources: Tensor, run: Callable[[nn.Module], Tensor]) -> nn.Module:
        pixels = sources.shape[1]
        if pixels not in self._fastest_products:
            if sources.is_cuda and not can_measure(sources.device):
                return self.candidates[0]
            self._fastest_products[pixels] = min(
                self.candidates, key=lambda product: _milliseconds(run, product)
            )
        return self._fastest_products[pixels]


def _programs_at_once(device: torch.device) -> int:
    """About the number that a GPU runs at the same time; few in the interpreter, which runs one by one."""
    if device.type != "cuda":
        return 4
    return 8 * torch.cuda.get_device_properties(device).multi_processor_count


def filter_by_torch(maps: Tensor, bias: Tensor | None, filters: Tensor, stride: int, result: Tensor) -> None:
    """`SendingProduct.filter` by torch."""
    rectified = F.relu(maps if bias is None else maps + bias)
    result.copy_(depthwise(rectified.to(result.dtype), filters, stride))


def _multiply_then(
    product: Callable[[Tensor], Tensor],
    send: Callable[..., None],
    sources: Tensor,
    bias: Tensor,
    filters: Tensor,
    stride: int,
    result: Tensor,
) -> None:
    maps = product(sources.flatten(1)).view(-1, *sources.shape[1:])
    send(maps, bias, filters, stride, result)


def _size(sources: Tensor) -> tuple[object, ...]:
    """Key of a selection: type and shape.

    Raises:
        WiringError: there are too many images for the kernels.
    """
    pixels = math.prod(sources.shape[1:])
    if pixels >= _MAX_PIXELS:
        raise WiringError(
            f"engine triton takes fewer than 2^31 pixels of a node, got {pixels:,}; evaluate smaller batches"
        )
    return (sources.dtype, *sources.shape)


def _strided(bias: Tensor, targets: int) -> tuple[Tensor, int, int]:
    """(contiguous bias, values of a target, step from one pixel to the next)."""
    bias = bias.reshape(targets, -1).contiguous()
    return bias, bias.shape[1], int(bias.shape[1] > 1)


def _fused(product: nn.Module, sources: Tensor, bias: Tensor, rectified: bool) -> Tensor:
    if isinstance(product, TritonProduct):
        return product.fused(sources, bias, rectified)
    maps: Tensor = product(sources)
    by_image = maps.view(len(maps), -1, bias[0].numel()) if bias[0].numel() > 1 else maps
    by_image.add_(bias.view(len(maps), 1, -1) if by_image.dim() == 3 else bias.view(-1, 1))
    return maps.relu_() if rectified else maps


def _milliseconds(run: Callable[[nn.Module], Tensor], product: nn.Module) -> float:
    """Time on a GPU; infinite for a kernel that Triton cannot compile."""
    try:
        for _ in range(2):  # the first call compiles
            run(product)
    except Exception as error:  # errors of Triton and of compilers have no common type
        if not isinstance(product, TritonProduct):
            raise
        _log.warning("engine auto runs without Triton: %s", error)
        return math.inf
    return milliseconds(lambda: run(product))


def load_kernels() -> Any:
    """The module of the kernels.

    Raises:
        MissingPackageError: Triton is not installed.
    """
    try:
        return importlib.import_module("wirings.engines.gather")
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "engine triton needs Triton, which torch's CUDA builds for Linux include: pip install triton"
        ) from error


def _check_device(tensor: Tensor) -> None:
    if tensor.device.type == "cuda":
        return
    # Not triton.knobs.runtime.interpret: Triton 3.2, which torch 2.6 brings along, has no such name.
    from triton.runtime.interpreter import InterpretedFunction

    if not isinstance(load_kernels().add_sources, InterpretedFunction):
        raise WiringError(
            f"engine triton runs on a GPU, and the network is on {tensor.device}. Run with --gpus 0, or use "
            "engine native"
        )
