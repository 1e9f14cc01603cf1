"""Normalisation of pixels: from bytes to numbers of mean 0 and standard deviation 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from genutil.exceptions import DataError

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey, by ITU-R BT.601, as in Pillow and torchvision."""


class Normalise:
    """(pixel / 255 − mean) / std by channel, on the device, as one product and one sum.

    Args:
        mean, std: by channel, for pixels within 0..1.
        device: of the results.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str) -> None:
        self.device = torch.device(device)
        deviation = torch.tensor(std, dtype=torch.float64)
        scale, shift = 1 / (255 * deviation), -torch.tensor(mean, dtype=torch.float64) / deviation
        self._scale, self._shift = (v.float().view(1, -1, 1, 1).to(self.device) for v in (scale, shift))

    @property
    def channels(self) -> int:
        """Channels of the normalised images."""
        return self._scale.shape[1]

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (n, channels, height, width) to float32; one channel becomes as many as `mean` has."""
        floats = images.to(self.device, non_blocking=True).expand(-1, self.channels, -1, -1)
        floats = floats.to(torch.float32, memory_format=torch.contiguous_format)
        return floats.mul_(self._scale).add_(self._shift)


def channel_statistics(
    mean: Sequence[float], std: Sequence[float], in_channels: int
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation for images of `in_channels` channels, from those of RGB images.

    Those of grey images are weighted by LUMA, as if the three channels were fully correlated.

    Raises:
        DataError: `in_channels` is neither 1 nor 3.
    """
    if in_channels == 3:
        return list(mean), list(std)
    if in_channels == 1:
        return [float(np.dot(LUMA, mean))], [float(np.dot(LUMA, std))]
    raise DataError(f"in_channels: these images have 3 channels, or 1 as grey ones, not {in_channels}")


def raise_if_not_grey(in_channels: int, name: str) -> None:
    """Refuse channel counts that grey images cannot have.

    Args:
        in_channels: channels of the network's images.
        name: of the data set.

    Raises:
        DataError: it is neither 1 nor 3.
    """
    if in_channels not in (1, 3):
        raise DataError(
            f"in_channels: the images of {name} are grey: 1 channel, or 3 equal ones, not {in_channels}"
        )


def grey(images: Tensor) -> Tensor:
    """uint8 RGB images (n, 3, height, width) as grey ones (n, 1, height, width), weighted by LUMA."""
    weights = torch.tensor(LUMA).view(1, 3, 1, 1)
    result = torch.empty_like(images[:, :1])
    for first in range(0, len(images), 1000):  # floats take four times the memory
        chunk = slice(first, first + 1000)
        result[chunk] = (images[chunk] * weights).sum(1, keepdim=True).round().byte()
    return result
