"""Random images that need no loading, for measuring the speed of a training."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from data.normalise import Normalise


class SyntheticBatches:
    """The same batch of random images in every step, on the device.

    Args:
        num_batches: of an epoch.
        batch_size: images of a batch.
        image_size: height and width, in pixels.
        num_classes: upper bound of the labels.
        normalise: uint8 to float32, on the device.
        seed: of images and labels.
    """

    def __init__(
        self,
        num_batches: int,
        batch_size: int,
        image_size: int,
        num_classes: int,
        normalise: Normalise,
        seed: int = 0,
    ) -> None:
        self.num_batches = num_batches
        generator = torch.Generator().manual_seed(seed)
        shape = (batch_size, 3, image_size, image_size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, num_classes, (batch_size,), generator=generator)
        self._batch = normalise(images), labels.to(normalise.device)

    def __len__(self) -> int:
        return self.num_batches

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """float32 images (batch_size, 3, height, width) and int64 labels, from batch `start` on."""
        for _ in range(start, self.num_batches):
            yield self._batch
