"""Random images that need no loading, for measuring the speed of a training."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from data.normalise import Normalise

_BATCHES = 100
"""Of an epoch, without `max_batches`."""


class SyntheticImages:
    """Random images in place of a data set, for any network: `data: data.synthetic:SyntheticImages`.

    Args:
        batch_size, test_batch_size: images of a training and of a validation batch.
        in_channels: of an image.
        image_size: height and width, in pixels.
        output_size: number of classes.
        seed: of images and labels.
        evaluate: the training images are not needed.
        max_batches: batches of an epoch; None: 100.
        device: where the images live.
    """

    def __init__(
        self,
        batch_size: int,
        test_batch_size: int | None = None,
        in_channels: int = 3,
        image_size: int = 224,
        output_size: int = 1000,
        seed: int = 0,
        evaluate: bool = False,
        max_batches: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        normalise = Normalise([0.5] * in_channels, [0.25] * in_channels, device)

        def batches(size: int) -> SyntheticBatches:
            return SyntheticBatches(max_batches or _BATCHES, size, image_size, output_size, normalise, seed)

        self.train = None if evaluate else batches(batch_size)
        self.val = batches(test_batch_size or batch_size)


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
        shape = (batch_size, normalise.channels, image_size, image_size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, num_classes, (batch_size,), generator=generator)
        self._batch = normalise(images), labels.to(normalise.device)

    def __len__(self) -> int:
        return self.num_batches

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """float32 images (batch_size, channels, height, width) and int64 labels, from batch `start` on."""
        for _ in range(start, self.num_batches):
            yield self._batch
