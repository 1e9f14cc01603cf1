"""CIFAR-10: 60,000 photographs of 32×32 pixels in ten classes; also your own images in its format."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision import datasets

from data.cifar_files import has_checksum, read_batch
from data.dataset import InMemoryDataset
from data.normalise import channel_statistics, grey
from genutil.exceptions import DataError

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
_log = logging.getLogger(__name__)


@dataclass(eq=False, repr=False)
class CIFAR10(InMemoryDataset):
    """50,000 images to train on (cropped after padding by 4, mirrored), 10,000 to test.

    Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. The images take
    about 0.3 GB. The files are searched in `<data_dir>/cifar10` and `<data_dir>`, else downloaded to the
    first.

    Args:
        data_dir, batch_size, test_batch_size, seed, device: see ImageDataset.
        image_size: must be 32.
        in_channels: 3, or 1 for grey.
        verify: the files must have the published checksums. Otherwise other checksums are a warning, and
            there may be any number of `data_batch_<number>` of any length.

    Raises:
        DataError: the files are damaged, or missing and cannot be downloaded, or an argument is out of range.
    """

    verify: bool = True

    name = "CIFAR-10"
    num_classes = 10
    published: ClassVar[type[Any]] = datasets.CIFAR10
    """Names and checksums of the files."""
    subfolder = "cifar10"
    url = URL
    mean, std = MEAN, STD
    label_key = "labels"
    own_files = "data_batch_[0-9]*"
    """Names of the training files, where they are a user's own."""

    def __post_init__(self) -> None:
        if self.image_size != 32:
            raise DataError(f"image_size: {self.name} images have 32 pixels, not {self.image_size}")
        mean, std = channel_statistics(self.mean, self.std, self.in_channels)
        folder = self._find_or_download(Path(self.data_dir).expanduser())
        train, test = (self._read(files) for files in self._files(folder))
        self._make_batches(train, test, mean, std, crop_padding=4, flip=True)

    def _read(self, files: list[Path]) -> tuple[Tensor, Tensor]:
        """Images and labels of several files."""
        batches = [read_batch(file, self.label_key) for file in files]
        images, labels = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
        return grey(images) if self.in_channels == 1 else images, labels

    def _find_or_download(self, data_dir: Path) -> Path:
        """The folder of the files."""
        home, base = data_dir / self.subfolder, str(self.published.base_folder)
        for folder in (home, data_dir):
            if (folder / base).is_dir():
                return folder / base
        if not self.verify:
            raise DataError(
                f"{home / base}: there is no such folder; put files in {self.name}'s format there"
            )
        _log.info("%s is not in %s; downloading it from %s", self.name, home, self.url)
        try:
            self.published(str(home), download=True)
        except Exception as error:  # torchvision promises no exception types for what a network can do
            raise DataError(
                f"{self.name} is not in {home} and could not be downloaded ({error}). "
                f"Fetch {self.url} on a machine with a network and unpack it, so that {home / base} exists; "
                "or name another folder with --data-dir."
            ) from error
        return home / base

    def _files(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """The training and the test files of a folder."""
        lists = self.published.train_list, self.published.test_list
        checksums = {folder / name: md5 for files in lists for name, md5 in files}
        train, test = ([folder / name for name, _ in files] for files in lists)
        if not self.verify:
            own_files = sorted(folder.glob(self.own_files), key=lambda path: (len(path.name), path.name))
            train = own_files or train
        problems = {path: "is missing" for path in (*train, *test) if not path.is_file()}
        if not problems:
            problems = {
                path: "has another checksum"
                for path in (*train, *test)
                if not has_checksum(path, checksums.get(path, ""))
            }
            if problems and not self.verify:
                names = ", ".join(path.name for path in problems)
                _log.warning("%s: not the published files, by their checksums: %s", folder, names)
                return train, test
        for path, problem in problems.items():
            hint = ", or, if they are your own, add --data_args verify=false" if self.verify else ""
            raise DataError(
                f"{folder}: files are missing or damaged; remove the folder and run again{hint} "
                f"({path.name} {problem})"
            )
        return train, test
