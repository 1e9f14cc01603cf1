"""Handwritten digits that are part of scikit-learn's files: no download."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data.dataset import InMemoryDataset
from data.normalise import raise_if_not_grey
from genutil.exceptions import DataError
from genutil.memory import require_memory

_BYTES_PER_PIXEL = 4 + 4 + 1 + 8
"""Memory while images are made: enlarged, rounded, as bytes, in double precision for mean and deviation."""
_NUM_TRAIN = 1437
_SPLIT = Path(__file__).with_name("digits_split.npy")
"""Indices of the training images, then of the test images: one random split by classes, for all seeds."""


@dataclass(eq=False, repr=False)
class Digits(InMemoryDataset):
    """1,797 real handwritten digits of 8×8 pixels, enlarged: 1,437 to train on, 360 to test.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998.
    scikit-learn has the images, so `data_dir` is not read.

    Args:
        data_dir, batch_size, test_batch_size, seed, device: see ImageDataset.
        image_size: height and width that the images are enlarged to, in pixels, at least 8.
        in_channels: 1, or 3 equal ones.

    Raises:
        DataError: `image_size` is below 8, or `in_channels` is neither 1 nor 3.
    """

    name = "digits"
    num_classes = 10

    def __post_init__(self) -> None:
        raise_if_not_grey(self.in_channels, self.name)
        size = self.image_size
        if size < 8:
            raise DataError(f"image_size: digits have 8×8 pixels and can be enlarged only, not to {size}")
        small, labels = _read_digits()
        require_memory(
            f"image_size: {len(small)} digits of {size} × {size} pixels",
            _BYTES_PER_PIXEL * len(small) * size**2,
            "choose a smaller image_size",
        )
        large = F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)
        images = large.round().clamp(0, 255).byte()
        train, test = torch.from_numpy(np.load(_SPLIT)).long().tensor_split([_NUM_TRAIN])
        pixels = images[train].double() / 255
        mean, std = [pixels.mean().item()] * self.in_channels, [pixels.std().item()] * self.in_channels
        self._make_batches(
            (images[train], labels[train]), (images[test], labels[test]), mean, std,
            crop_padding=size // 8, flip=False,
        )  # fmt: skip


def _read_digits() -> tuple[Tensor, Tensor]:
    """Images, (1797, 1, 8, 8) with values up to 255, and labels, without the import of scikit-learn.

    Raises:
        DataError: scikit-learn is not installed.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError("data: the digits are files of scikit-learn; install it: pip install scikit-learn")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = torch.from_numpy(np.loadtxt(path, np.int64, delimiter=","))
    return table[:, :-1].float().view(-1, 1, 8, 8) * (255 / 16), table[:, -1]
