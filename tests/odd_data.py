"""Data classes of a user's own that give something other than a network expects."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.tiny_data import TinyBatches, TinyData


class OddData(TinyData):
    """Tiny data of which one part is changed.

    Args:
        part: `train`, `val` or `both`.
        images, labels: a type, such as float64.
        label: the label of the image at `place`.
        channels: of the images.
        columns: of the labels; 0: they have one axis.
    """

    def __init__(
        self,
        batch_size: int,
        image_size: int,
        output_size: int,
        seed: int,
        part: str = "train",
        images: str = "float32",
        labels: str = "int64",
        label: int | None = None,
        place: int = 0,
        channels: int = 3,
        columns: int = 0,
    ) -> None:
        super().__init__(batch_size, image_size, output_size, seed)
        odd: list[TinyBatches] = [self.train, self.val] if part == "both" else [getattr(self, part)]
        for batches in odd:
            self._change(batches, images, labels, label, place, channels, columns)

    def _change(
        self,
        batches: TinyBatches,
        images: str,
        labels: str,
        label: int | None,
        place: int,
        channels: int,
        columns: int,
    ) -> None:
        if label is not None:
            batches.labels[place] = label
        batches.images = batches.images[:, :1].expand(-1, channels, -1, -1)
        if images == "uint8":
            batches.images = batches.images.abs()
        batches.images = batches.images.to(getattr(torch, images))
        batches.labels = batches.labels.to(getattr(torch, labels))
        if columns:
            batches.labels = batches.labels.unsqueeze(1).expand(-1, columns)


class Loaders:
    """Two `DataLoader`s that draw from torch's global generator."""

    def __init__(self, batch_size: int, image_size: int, output_size: int, label: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(20, 3, image_size, image_size, generator=generator)
        labels = torch.randint(0, output_size, (20,), generator=generator)
        if label is not None:
            labels[:] = label
        images_and_labels = TensorDataset(images, labels)
        self.train, self.val = (DataLoader(images_and_labels, batch_size, shuffle=True) for _ in range(2))


class OwnNetwork(torch.nn.Module):
    """A network that reads neither `in_channels` nor `output_size`: 5 outputs, bytes with 2 channels."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(2, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc((images / 255).mean((2, 3)))
