"""The product of a wiring's weights with the maps of its sources."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def send(sources: Tensor, weight: Tensor) -> Tensor:
    """A 1×1 convolution: (images, sources, S, S) and (targets, sources, 1, 1) to (images, targets, S, S).

    With channels last in memory it is one matrix product without any copy, which takes less time than the
    convolution does.
    """
    if sources.is_contiguous(memory_format=torch.channels_last):
        pixels = sources.permute(0, 2, 3, 1)
        return F.linear(pixels, weight.flatten(1)).permute(0, 3, 1, 2)
    return F.conv2d(sources, weight)
