"""A data set of a few random images, so that tests of the trainer need no files and no time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


class TinyBatches:
    """`size` random images whose order depends on (seed, epoch) alone."""

    def __init__(self, size: int, batch_size: int, image_size: int, classes: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(size)
        self.images = torch.randn(size, 3, image_size, image_size, generator=generator)
        self.labels = torch.randint(0, classes, (size,), generator=generator)
        self.batch_size, self.seed = batch_size, seed

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(
            len(self.labels), generator=torch.Generator().manual_seed(1000 * self.seed + epoch)
        )
        for chosen in order.split(self.batch_size)[start:]:
            yield self.images[chosen], self.labels[chosen]


class TinyData:
    """A data class of a user's own: arguments with the names of keys, and one of its own (`num_images`)."""

    def __init__(
        self, batch_size: int, image_size: int, output_size: int, seed: int, num_images: int = 22
    ) -> None:
        self.train = TinyBatches(num_images, batch_size, image_size, output_size, seed)
        self.val = TinyBatches(10, 4, image_size, output_size, seed)


class BrokenData(TinyData):
    """Infinite pixels: the loss of the first step is NaN."""

    def __init__(self, batch_size: int, image_size: int, output_size: int, seed: int) -> None:
        super().__init__(batch_size, image_size, output_size, seed)
        self.train.images = self.train.images * torch.inf


class FewImages:
    """One batch to train on, one to validate."""

    def __init__(self, image_size: int, output_size: int, seed: int) -> None:
        self.train = TinyBatches(4, 4, image_size, output_size, seed)
        self.val = TinyBatches(3, 3, image_size, output_size, seed)


class EndlessData(TinyData):
    """Validation that goes on for hours."""

    def __init__(self, batch_size: int, image_size: int, output_size: int, seed: int) -> None:
        super().__init__(batch_size, image_size, output_size, seed)
        self.val.batches = self._forever  # type: ignore[method-assign]

    def _forever(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(10_000_000):
            yield self.val.images[:4], self.val.labels[:4]
