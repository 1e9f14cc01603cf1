"""Operations of a compact MobileNet graph."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wirings.compact_network import CompactNetwork, CompactStage, ConvStem, TargetProduct, dense_weight
from wirings.native.operations import Activation, Maps, Operations


def operations_of(network: CompactNetwork, size: tuple[int, int]) -> Operations:
    """The operations for images of a size.

    Args:
        network: see CompactNetwork.is_mobilenet_graph.
    """
    result, stem = Operations(), network.stem
    assert isinstance(stem, ConvStem)
    images = result.input(stem.weight.shape[1], size)
    steps = (stem.stride, stem.stride)
    maps = result.convolution(images, _array(stem.weight), _array(stem.bias), steps, (1, 1), name="stem")
    biases, constant_logits = network.constants_for(stem.weight.new_empty(0, 1, *maps.size))
    for number, (stage, stage_biases) in enumerate(zip(network.stages, biases, strict=True)):
        assert isinstance(stage, CompactStage)
        sources = np.empty(0, np.int64)
        for group, (filters, product, bias) in enumerate(
            zip(stage.filters, stage.products, stage_biases, strict=True)
        ):
            assert isinstance(product, TargetProduct)
            name = f"stages.{number}.{group}"
            stride = stage.stride if group == 0 else 1
            sent = _filtered(result, maps, filters, stride, name)
            sources = np.concatenate([sources, sent.numbers])
            maps = _product(result, Maps(sources, sent.size), product, bias, name)
    features = result.mean(result.activation(maps, Activation.RELU, "pool"), "pool")
    result.output(result.linear(features, _array(network.head.weight), _array(constant_logits[0]), "head"))
    return result


def _filtered(operations: Operations, maps: Maps, filters: Tensor, stride: int, name: str) -> Maps:
    rectified = operations.activation(maps, Activation.RELU, name)
    pair = (stride, stride)
    return operations.convolution(
        rectified, _array(filters), None, pair, (1, 1), groups=rectified.channels, name=f"{name}.filters"
    )


def _product(operations: Operations, sources: Maps, product: TargetProduct, bias: Tensor, name: str) -> Maps:
    weight = _array(dense_weight(product))
    maps = bias.expand(product.num_targets, 1, *sources.size).squeeze(1)
    is_constant = bool((maps == maps[:, :1, :1]).all())
    biases = maps[:, 0, 0] if is_constant else torch.zeros(product.num_targets)
    result = operations.convolution(sources, weight[:, :, None, None], _array(biases), name=name)
    if not is_constant:
        operations.list[-1].bias_maps = _array(maps)
    return result


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().float().numpy())
