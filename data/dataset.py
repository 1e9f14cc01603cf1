"""Base classes of the image data sets: the arguments that all of them take."""

# Annotations are not strings here: genutil.config.components reads them from subclasses in other modules.
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from data.loaders import ImageBatches


@dataclass(eq=False, repr=False)
class ImageDataset:
    """A data set with batches to train on and to validate with.

    The fields are the arguments of the constructor, which have the names of an experiment's keys. A subclass
    adds fields of its own and sets `train` and `val` in `__post_init__`.

    Args:
        data_dir: folder of the data sets.
        batch_size, test_batch_size: images of a training and of a validation batch; equal by default.
        image_size: height and width of an image, in pixels.
        seed: of order, crops and flips.
        device: where batches are made.
        in_channels: channels of an image.
    """

    data_dir: str | Path
    batch_size: int
    test_batch_size: int | None = None
    image_size: int = 32
    seed: int = 0
    device: torch.device | str = "cpu"
    in_channels: int = 3


@dataclass(eq=False, repr=False)
class InMemoryDataset(ImageDataset):
    """A data set whose images are in memory, on the device.

    Attributes:
        train, val: batches.
    """

    train: ImageBatches = field(init=False)
    val: ImageBatches = field(init=False)

    def _make_batches(
        self,
        train: tuple[Tensor, Tensor],
        val: tuple[Tensor, Tensor],
        mean: list[float],
        std: list[float],
        crop_padding: int,
        flip: bool,
    ) -> None:
        """Set `train` and `val`, from images and labels as ImageBatches takes them."""
        self.train = ImageBatches(
            *train, self.batch_size, mean, std,
            shuffle=True, crop_padding=crop_padding, flip=flip, seed=self.seed, device=self.device,
        )  # fmt: skip
        test_batch_size = self.test_batch_size or self.batch_size
        self.val = ImageBatches(*val, test_batch_size, mean, std, device=self.device)
