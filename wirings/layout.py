"""Functions of maps: memory layout, size, convolutions and pooling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def to_fast_layout(maps: Tensor) -> Tensor:
    """Maps with channels last on the CPU, where depthwise 3×3 convolutions are then many times faster.

    On a GPU the layout is unchanged, since it was not measured there.
    """
    if maps.device.type != "cpu":
        return maps
    return maps.contiguous(memory_format=torch.channels_last)


def conv_out_size(length: int, stride: int) -> int:
    """Height or width after a 3×3 convolution with padding 1."""
    return (length - 1) // stride + 1


def conv1x1(sources: Tensor, weight: Tensor) -> Tensor:
    """A 1×1 convolution: (images, sources, S, S) and (targets, sources, 1, 1) to (images, targets, S, S).

    With channels last in memory it is one matrix product without a copy, which is faster than a
    convolution.
    """
    if sources.is_contiguous(memory_format=torch.channels_last):
        pixels = sources.permute(0, 2, 3, 1)
        return F.linear(pixels, weight.flatten(1)).permute(0, 3, 1, 2)
    return F.conv2d(sources, weight)


def depthwise(maps: Tensor, filters: Tensor, stride: int) -> Tensor:
    """Each node's 3×3 filter, with padding 1.

    Args:
        maps: (nodes, images, S, S).
        filters: (nodes, 1, 3, 3).
        stride: of the filters.

    Returns:
        (nodes, images, S', S') in the type of `maps`.
    """
    nodes, images, height, width = maps.shape
    size = conv_out_size(height, stride), conv_out_size(width, stride)
    if not nodes or not images:
        return maps.new_empty(nodes, images, *size)
    # As one image with nodes · images channels, without a transposition.
    channels = maps.reshape(1, nodes * images, height, width)
    filters = filters.to(maps.dtype)
    repeated = filters.repeat_interleave(images, 0) if images > 1 else filters
    return F.conv2d(channels, repeated, stride=stride, padding=1, groups=nodes * images).view(
        nodes, images, *size
    )


def mean_of_relu(maps: Tensor) -> Tensor:
    """ReLU, then the mean over all pixels, (…, S, S) to (…); in float32 for maps of 16 bits."""
    return F.relu(maps).mean((-2, -1), dtype=torch.promote_types(maps.dtype, torch.float32))
