"""A compact network as plain convolutions on maps (images, nodes, S, S), for other runtimes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wirings.compact_network import (
    CompactNetwork,
    CompactStage,
    ConvStem,
    TargetProduct,
    dense_weight,
    fixed,
)
from wirings.cycles import CycleStage
from wirings.engines.dense import DenseProduct
from wirings.errors import WiringError
from wirings.layout import conv_out_size
from wirings.plan import ByNode
from wirings.structure import FixedSteps, Repeat
from wirings.wrappers import EvaluationOnly


class PortableNetwork(EvaluationOnly):
    """The network for images of one size: the sum over constant nodes is a bias of each map.

    Args:
        network: a compact network with dense products.
        shape: (channels, height, width) of the images.

    Raises:
        WiringError: a graph in continuous time whose solver chooses its steps by the states; or no node
            depends on the image.
    """

    def __init__(self, network: CompactNetwork, shape: Sequence[int]) -> None:
        super().__init__()
        self.stem, self.head = network.stem, network.head
        if isinstance(self.stem, ConvStem) and not len(self.stem.weight):
            raise WiringError("no node of this network depends on the image; its logits are constant")
        with torch.no_grad():
            biases, self.constant = network.constants_for(self.stem(torch.zeros(1, *shape)))
        stages = zip(network.stages, biases, strict=True)
        self.stages = nn.ModuleList(_portable(stage, bias) for stage, bias in stages)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """(images, channels, height, width) to logits (images, classes)."""
        if isinstance(self.stem, ConvStem):
            maps = F.conv2d(images, self.stem.weight, self.stem.bias, self.stem.stride, padding=1)
        else:
            maps = self.stem(images).transpose(0, 1)
        for stage in self.stages:
            maps = stage(maps)
        logits: Tensor = self.head(maps.transpose(0, 1)) + self.constant
        return logits


def _portable(stage: nn.Module, biases: Sequence[Tensor]) -> nn.Module:
    if isinstance(stage, CompactStage):
        return _Stage(stage, biases)
    if isinstance(stage, CycleStage) and isinstance(stage.run, (Repeat, FixedSteps)):
        return _Cycle(stage)
    raise WiringError(
        "a graph in continuous time cannot be exported if its solver has adaptive steps, which ONNX cannot "
        "express; use a solver with steps of equal size: euler, midpoint or rk4"
    )


class _Stage(nn.Module):
    """An acyclic stage."""

    def __init__(self, stage: CompactStage, biases: Sequence[Tensor]) -> None:
        super().__init__()
        self.stride, self.filters = stage.stride, stage.filters
        self.products = nn.ModuleList(
            _Product(product, bias) for product, bias in zip(stage.products, biases, strict=True)
        )

    def forward(self, maps: Tensor) -> Tensor:
        sources: list[Tensor] = []
        for number, (filters, product) in enumerate(zip(self.filters, self.products, strict=True)):
            sources.append(_depthwise(F.relu(maps), filters, self.stride if number == 0 else 1))
            maps = product(torch.cat(sources, 1))
        return maps


class _Product(nn.Module):
    """A 1×1 convolution with all weights, zeros included, and the norm that could not be folded."""

    def __init__(self, product: nn.Module, bias: Tensor) -> None:
        super().__init__()
        assert isinstance(product, TargetProduct)
        self.weight = None if product.product is None else fixed(dense_weight(product)[:, :, None, None])
        self.bias, self.after = fixed(bias.squeeze(1)), product.after
        self.has_no_norm = isinstance(product.after, nn.Identity)

    def forward(self, sources: Tensor) -> Tensor:
        if self.weight is None:
            maps = self.bias.expand(len(sources), -1, *sources.shape[2:])
        elif self.bias.shape[1:] == (1, 1):
            maps = F.conv2d(sources, self.weight, self.bias.flatten())
        else:
            maps = F.conv2d(sources, self.weight) + self.bias
        return maps if self.has_no_norm else self.after(maps.transpose(0, 1)).transpose(0, 1)


class _Cycle(nn.Module):
    """A graph with cycles and unrolled updates."""

    def __init__(self, stage: CycleStage) -> None:
        super().__init__()
        self.filters, self.run, self.num_outputs = stage.filters, stage.run, stage.num_outputs
        self.norm = stage.norm.norm if isinstance(stage.norm, ByNode) else None
        assert isinstance(stage.product, DenseProduct)
        self.weight = fixed(stage.product.weight[:, :, None, None])
        self.shift = None if stage.shift is None else fixed(stage.shift.flatten())

    def forward(self, entering: Tensor) -> Tensor:
        states = F.pad(entering, (0, 0, 0, 0, 0, len(self.filters) - entering.shape[1]))
        return self.run(self._update, states)[:, -self.num_outputs :]

    def _update(self, states: Tensor) -> Tensor:
        sources = _depthwise(F.relu(states), self.filters, stride=1)
        maps = F.conv2d(sources, self.weight, self.shift)
        return maps if self.norm is None else self.norm(maps)


def _depthwise(maps: Tensor, filters: Tensor, stride: int) -> Tensor:
    if not len(filters):  # runtimes refuse convolutions without channels
        return maps.new_zeros(
            len(maps), 0, conv_out_size(maps.shape[2], stride), conv_out_size(maps.shape[3], stride)
        )
    return F.conv2d(maps, filters, stride=stride, padding=1, groups=len(filters))
