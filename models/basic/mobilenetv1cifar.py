"""MobileNetV1 for images of CIFAR's size.

Source: Howard et al., "MobileNets", arXiv 1704.04861; strides as in the CIFAR-10 experiments of
"Discovering Neural Wirings".
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from wirings.structure import FoldableNorms, WiredNetwork

WIDTHS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
"""(channels at width 1, stride) of each layer."""


class _Separable(nn.Module):
    """A depthwise 3×3 convolution, then a 1×1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv2 = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(maps))))))


class MobileNetV1CIFAR(WiredNetwork):
    """Dense MobileNetV1 with a stem of stride 1.

    Args:
        in_channels: channels of an image.
        image_size: height and width of an image, in pixels.
        output_size: classes.
        width_mult: factor of all widths.
    """

    def __init__(self, in_channels: int, image_size: int, output_size: int, width_mult: float) -> None:
        super().__init__()
        self.image_size = image_size
        width = int(32 * width_mult)
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        layers = []
        for channels, stride in WIDTHS:
            outputs = int(channels * width_mult)
            layers.append(_Separable(width, outputs, stride))
            width = outputs
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(width, output_size)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.layers(F.relu(self.bn1(self.conv1(images))))
        logits: Tensor = self.linear(maps.mean((2, 3)))
        return logits

    def structure(self) -> FoldableNorms:
        """Every convolution is followed by its batch norm."""
        layers = [f"layers.{number}" for number in range(len(self.layers))]
        pairs = [(f"{layer}.conv{number}", f"{layer}.bn{number}") for layer in layers for number in (1, 2)]
        return FoldableNorms([("conv1", "bn1"), *pairs])
