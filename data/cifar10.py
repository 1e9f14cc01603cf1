"""CIFAR-10: 60,000 photographs of 32×32 pixels in ten classes."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torchvision import datasets

from data.loaders import ImageBatches
from genutil.errors import DataError

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
_FOLDER = datasets.CIFAR10.base_folder
_log = logging.getLogger(__name__)


class CIFAR10:
    """50,000 images to train on (cropped after padding by 4, mirrored), 10,000 to test.

    Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.

    Args:
        data_dir: looked for in `<data_dir>/cifar10` and `<data_dir>`, else downloaded to the first.
        batch_size, test_batch_size: images of a training and of a test batch.
        image_size: must be 32.
        seed: of order, crops and flips.
        device: where the images live (about 0.3 GB).

    Raises:
        DataError: the files are damaged, or absent and not to be downloaded.
    """

    name = "CIFAR-10"
    num_classes = 10

    def __init__(
        self,
        data_dir: str | Path,
        batch_size: int,
        test_batch_size: int | None = None,
        image_size: int = 32,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if image_size != 32:
            raise DataError(f"image_size: CIFAR-10 images have 32 pixels, not {image_size}")
        folder = _find_or_download(Path(data_dir).expanduser())
        images, labels = _read(folder, train=True)
        self.train = ImageBatches(
            images, labels, batch_size, MEAN, STD,
            shuffle=True, crop_padding=4, flip=True, seed=seed, device=device,
        )  # fmt: skip
        images, labels = _read(folder, train=False)
        self.val = ImageBatches(images, labels, test_batch_size or batch_size, MEAN, STD, device=device)


def _find_or_download(data_dir: Path) -> Path:
    """The folder above `cifar-10-batches-py`."""
    home = data_dir / "cifar10"
    for folder in (home, data_dir):
        if (folder / _FOLDER).is_dir():
            return folder
    _log.info("CIFAR-10 is not in %s; downloading it from %s", home, URL)
    try:
        datasets.CIFAR10(str(home), download=True)
    except Exception as error:  # torchvision promises no exception types for what a network can do
        raise DataError(
            f"CIFAR-10 is not in {home} and could not be downloaded ({error}). "
            f"Fetch {URL} on a machine with a network and unpack it, so that {home / _FOLDER} exists; "
            "or name another folder with --data-dir."
        ) from error
    return home


def _read(folder: Path, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 images (n, 3, 32, 32), labels. torchvision checks the checksums before it unpickles."""
    try:
        data = datasets.CIFAR10(str(folder), train=train)
    except RuntimeError as error:
        message = f"{folder / _FOLDER}: files are missing or damaged; remove the folder and run again"
        raise DataError(message) from error
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor(data.targets)
