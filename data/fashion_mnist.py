"""Fashion-MNIST: 70,000 pictures of clothes of 28×28 pixels in ten classes."""

from __future__ import annotations

import gzip
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torchvision import datasets

from data.dataset import InMemoryDataset
from data.normalise import raise_if_not_grey
from genutil.exceptions import DataError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FILES = {
    "train images": ("train-images-idx3-ubyte", (60_000, 28, 28)),
    "train labels": ("train-labels-idx1-ubyte", (60_000,)),
    "test images": ("t10k-images-idx3-ubyte", (10_000, 28, 28)),
    "test labels": ("t10k-labels-idx1-ubyte", (10_000,)),
}
MEAN, STD = 0.2190, 0.3318
"""Over all pixels of the 60,000 training images, after padding to 32 pixels."""
_log = logging.getLogger(__name__)


@dataclass(eq=False, repr=False)
class FashionMNIST(InMemoryDataset):
    """60,000 images to train on (cropped after padding by 4, mirrored), 10,000 to test; 32×32 pixels.

    Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST", arXiv 1708.07747. The images take about 0.1 GB.
    The four files, packed or not, are searched in `<data_dir>/fashion_mnist`, `<data_dir>/FashionMNIST/raw`
    and the folder of Debian's package dataset-fashion-mnist, else downloaded to the second.

    Args:
        data_dir, batch_size, test_batch_size, seed, device: see ImageDataset.
        image_size: must be 32.
        in_channels: 1, or 3 equal ones.
        num_images: train on the first `num_images` images only.

    Raises:
        DataError: the files are damaged, or missing and cannot be downloaded, or an argument is out of range.
    """

    num_images: int = 60_000

    name = "Fashion-MNIST"
    num_classes = 10

    def __post_init__(self) -> None:
        raise_if_not_grey(self.in_channels, self.name)
        if self.image_size != 32:
            raise DataError(
                f"image_size: Fashion-MNIST images are padded to 32 pixels, not {self.image_size}"
            )
        if not 1 <= self.num_images <= 60_000:
            raise DataError(
                f"num_images: Fashion-MNIST has 1 to 60,000 images to train on, not {self.num_images}"
            )
        arrays = read_files(self.data_dir)
        train, test = (
            (F.pad(arrays[f"{part} images"].unsqueeze(1), (2, 2, 2, 2)), arrays[f"{part} labels"].long())
            for part in ("train", "test")
        )
        train = (train[0][: self.num_images], train[1][: self.num_images])
        mean, std = [MEAN] * self.in_channels, [STD] * self.in_channels
        self._make_batches(train, test, mean, std, crop_padding=4, flip=True)


def read_files(data_dir: str | Path) -> dict[str, torch.Tensor]:
    """The uint8 arrays of the four files, by the keys of FILES; `data_dir` and errors: see FashionMNIST."""
    folder = _find_or_download(Path(data_dir).expanduser())
    return {key: read_idx(_file(folder, name), shape) for key, (name, shape) in FILES.items()}


def read_idx(path: Path, shape: tuple[int, ...]) -> torch.Tensor:
    """The uint8 array of an IDX file, packed with gzip or not.

    Raises:
        DataError: the file is damaged, or holds something other than an array of this shape.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch it again") from error
    # magic number: two zeros, type 8 (unsigned byte), number of axes; then their lengths, big-endian
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
    if content[: len(header)] != header or len(content) != len(header) + int(np.prod(shape)):
        raise DataError(f"{path}: is not an IDX file of {' × '.join(map(str, shape))} bytes; fetch it again")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape).copy())


def _find_or_download(data_dir: Path) -> Path:
    raw = data_dir / "FashionMNIST" / "raw"
    folders = (data_dir / "fashion_mnist", raw, DEBIAN_FOLDER)
    for folder in folders:
        if folder.is_dir() and all(_file(folder, name).is_file() for name, _ in FILES.values()):
            return folder
    _log.info("Fashion-MNIST is not in %s; downloading it", data_dir)
    try:
        datasets.FashionMNIST(str(data_dir), download=True)
    except Exception as error:  # torchvision promises no exception types for what a network can do
        places = "\n  ".join(str(folder) for folder in folders)
        raise DataError(
            f"Fashion-MNIST could not be downloaded ({error}), and its files are in none of\n  {places}\n"
            "On Debian: apt-get install dataset-fashion-mnist. Elsewhere fetch the four .gz files from "
            f"https://github.com/zalandoresearch/fashion-mnist into {folders[0]}."
        ) from error
    return raw


def _file(folder: Path, name: str) -> Path:
    packed = folder / f"{name}.gz"
    return packed if packed.is_file() else folder / name
