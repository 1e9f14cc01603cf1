"""From bytes to numbers of mean 0 and standard deviation 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Normalise:
    """(pixel / 255 − mean) / std by channel, on the device, as one product and one sum.

    Args:
        mean, std: by channel, for pixels within 0..1.
        device: where the numbers are wanted.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str) -> None:
        self.device = torch.device(device)
        deviation = torch.tensor(std, dtype=torch.float64)
        scale, shift = 1 / (255 * deviation), -torch.tensor(mean, dtype=torch.float64) / deviation
        self._scale, self._shift = (v.float().view(1, -1, 1, 1).to(self.device) for v in (scale, shift))

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (n, channels, height, width) to float32; one channel becomes as many as `mean` has."""
        floats = images.to(self.device, non_blocking=True).expand(-1, self._scale.shape[1], -1, -1)
        floats = floats.to(torch.float32, memory_format=torch.contiguous_format)
        return floats.mul_(self._scale).add_(self._shift)
