"""Maps in memory: their layout and size, and 1×1 convolutions of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def to_fast_layout(maps: Tensor) -> Tensor:
    """Maps with channels last on the CPU, where 3×3 filters of single channels run many times faster so.

    On a GPU they stay as they are: nothing was measured there yet.
    """
    if maps.device.type != "cpu":
        return maps
    return maps.contiguous(memory_format=torch.channels_last)


def conv_out_size(length: int, stride: int) -> int:
    """Height or width after a 3×3 convolution with padding 1."""
    return (length - 1) // stride + 1


def conv1x1(sources: Tensor, weight: Tensor) -> Tensor:
    """A 1×1 convolution: (images, sources, S, S) and (targets, sources, 1, 1) to (images, targets, S, S).

    With channels last in memory it is one matrix product without any copy, which takes less time than the
    convolution does.
    """
    if sources.is_contiguous(memory_format=torch.channels_last):
        pixels = sources.permute(0, 2, 3, 1)
        return F.linear(pixels, weight.flatten(1)).permute(0, 3, 1, 2)
    return F.conv2d(sources, weight)
