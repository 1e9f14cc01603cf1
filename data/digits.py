"""Handwritten digits that come with scikit-learn: nothing to download."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from data.loaders import ImageBatches
from data.normalise import raise_if_not_grey
from genutil.errors import DataError
from genutil.memory import require_memory

_BYTES_PER_PIXEL = 4 + 4 + 1 + 8
"""While an image is made: enlarged, rounded, in bytes, and in double precision for mean and deviation."""
_SPLIT_SEED = 0
"""The split is a part of the data set: it stays the same whatever the experiment's seed is."""


class Digits:
    """1,797 real handwritten digits of 8×8 pixels, enlarged: 1,437 to train on, 360 to test.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998.

    Args:
        data_dir: not needed; scikit-learn has the images.
        batch_size, test_batch_size: images of a training and of a test batch.
        image_size: height and width that the images are enlarged to, in pixels, at least 8.
        seed: of order and crops.
        device: where the images live.
        in_channels: 1, or 3 equal ones.

    Raises:
        DataError: the images cannot be made that small, or do not have so many channels.
    """

    name = "digits"
    num_classes = 10

    def __init__(
        self,
        data_dir: str | Path,
        batch_size: int,
        test_batch_size: int | None = None,
        image_size: int = 32,
        seed: int = 0,
        device: torch.device | str = "cpu",
        in_channels: int = 3,
    ) -> None:
        raise_if_not_grey(in_channels, self.name)
        if image_size < 8:
            raise DataError(
                f"image_size: digits have 8×8 pixels and can be enlarged only, not to {image_size}"
            )
        digits = load_digits()
        require_memory(
            f"image_size: {len(digits.images)} digits of {image_size} × {image_size} pixels",
            _BYTES_PER_PIXEL * len(digits.images) * image_size**2,
            "choose a smaller image_size",
        )
        small = torch.from_numpy(digits.images).float().unsqueeze(1) * (255 / 16)
        large = F.interpolate(small, size=(image_size, image_size), mode="bilinear", align_corners=False)
        images, labels = large.round().clamp(0, 255).byte(), torch.from_numpy(digits.target).long()
        train, test = train_test_split(
            torch.arange(len(labels)).numpy(), test_size=0.2, random_state=_SPLIT_SEED, stratify=digits.target
        )
        pixels = images[train].double() / 255
        mean, std = [pixels.mean().item()] * in_channels, [pixels.std().item()] * in_channels
        self.train = ImageBatches(
            images[train], labels[train], batch_size, mean, std,
            shuffle=True, crop_padding=image_size // 8, seed=seed, device=device,
        )  # fmt: skip
        self.val = ImageBatches(
            images[test], labels[test], test_batch_size or batch_size, mean, std, device=device
        )
