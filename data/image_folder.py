"""Batches from folders of image files: one folder a class, decoded by worker processes."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.datasets.folder import IMG_EXTENSIONS

from data.normalise import Normalise
from genutil.errors import DataError

Transform = Callable[[Image.Image], Image.Image]
"""May draw random numbers from torch's global generator, which is seeded for each image."""
Sample = tuple[Tensor, int] | str
"""uint8 (3, height, width) and its label, or the file that could not be read."""

_log = logging.getLogger(__name__)


def list_classes(folder: Path) -> list[str]:
    """Names of the classes, sorted: their places are the labels.

    Raises:
        DataError: the folder is missing or has no classes.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: there is no such folder; it must hold one folder of images for each class"
        )
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    if not names:
        raise DataError(f"{folder}: holds no folders; it must hold one folder of images for each class")
    return names


def list_images(folder: Path, classes: Sequence[str]) -> list[tuple[str, int]]:
    """(file, label) of every image, by class and name. `classes` gives the labels.

    Raises:
        DataError: a class has no images, or is not among `classes`.
    """
    labels = {name: label for label, name in enumerate(classes)}
    here = list_classes(folder)
    strange = [name for name in here if name not in labels]
    if strange:
        raise DataError(f"{folder}: has the class {strange[0]}, which the training images lack")
    images: list[tuple[str, int]] = []
    for name in here:
        found = sorted(
            os.path.join(parent, file)
            for parent, _, files in os.walk(folder / name, followlinks=True)
            for file in files
            if file.lower().endswith(IMG_EXTENSIONS)
        )
        if not found:
            raise DataError(
                f"{folder / name}: has no images ({', '.join(IMG_EXTENSIONS)}); "
                "fill it, or remove it if there is no such class"
            )
        images += [(file, labels[name]) for file in found]
    return images


def count_workers(workers: int | Literal["auto"]) -> int:
    """Processes to start: as asked, but not more than there are CPUs. Batches do not depend on it."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers == "auto":
        return available
    if workers > available:
        _log.info("workers: %d asked for, one for each of %d CPUs is used", workers, available)
    return min(workers, available)


class ImageFiles(Dataset[Sample]):
    """Decodes and transforms images. Item (epoch, index) depends on these two and the seed alone.

    Args:
        images: (file, label).
        transform: image to image; all results of a batch must have one size.
        seed: of what the transform draws.
    """

    def __init__(self, images: Sequence[tuple[str, int]], transform: Transform, seed: int) -> None:
        # As arrays, not lists of objects: workers then share the memory of the process they were forked from.
        self.files = np.array([os.fsencode(file) for file, _ in images])
        self.labels = np.array([label for _, label in images], dtype=np.int64)
        self.transform, self.seed = transform, seed

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        epoch, index = item
        file = os.fsdecode(bytes(self.files[index]))
        try:
            with Image.open(file) as opened:
                image = opened.convert("RGB")
        except MemoryError:
            raise
        except Exception:  # what PIL's decoders raise for damaged files is not limited to any types
            return file
        numbers = np.random.SeedSequence([self.seed, epoch, index]).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(numbers[0] >> np.uint64(1)))
            image = self.transform(image)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous(), int(self.labels[index])


class _Order(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index). `epoch` and `start` are set before each pass."""

    def __init__(self, num_images: int, batch_size: int, shuffle: bool, seed: int) -> None:
        self.num_images, self.batch_size, self.shuffle, self.seed = num_images, batch_size, shuffle, seed
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return -(-self.num_images // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.arange(self.num_images)
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        for first in range(self.start * self.batch_size, self.num_images, self.batch_size):
            yield [(self.epoch, int(index)) for index in order[first : first + self.batch_size]]


class FolderBatches:
    """Batches of image files. Batch b of epoch e depends on (seed, e, b) alone.

    Workers decode into uint8 and stay alive between epochs; batches go to the device as uint8, a quarter of
    the bytes, and are normalised there.

    Args:
        images: (file, label).
        transform: PIL image to PIL image of the network's size.
        batch_size: images of a batch; the last one of an epoch may be shorter.
        normalise: uint8 to float32, on the device.
        workers: loading processes; 0: this one.
        shuffle: a new order in each epoch.
        seed: of order and transforms.
        skip_corrupt: leave out images that cannot be read; else the first one ends the run.
        corrupt: where the files that were left out are noted.
    """

    def __init__(
        self,
        images: Sequence[tuple[str, int]],
        transform: Transform,
        batch_size: int,
        normalise: Normalise,
        workers: int,
        shuffle: bool,
        seed: int,
        skip_corrupt: bool,
        corrupt: set[str],
    ) -> None:
        self.normalise, self.skip_corrupt, self.corrupt = normalise, skip_corrupt, corrupt
        self._order = _Order(len(images), batch_size, shuffle, seed)
        more: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": 4} if workers else {}
        self._loader: DataLoader[Any] = DataLoader(
            ImageFiles(images, transform, seed),
            batch_sampler=self._order,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=normalise.device.type == "cuda",
            worker_init_fn=_prepare_worker,
            generator=torch.Generator(),  # else it draws from the global one, as dropout does
            **more,
        )

    def __len__(self) -> int:
        return len(self._order)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """float32 images (n, 3, height, width) and int64 labels (n), from batch `start` on.

        A batch of which no image can be read is left out.

        Raises:
            DataError: an image cannot be read, or with `skip_corrupt` none of them.
        """
        self._order.epoch, self._order.start = epoch, start
        any_read = False
        for images, labels, unread in self._loader:
            self._note(unread)
            if images is not None:
                any_read = True
                yield self.normalise(images), labels.to(self.normalise.device, non_blocking=True)
        if not any_read and start < len(self):
            raise DataError(f"{unread[0]}: neither this nor any other image can be read")

    def _note(self, unread: list[str]) -> None:
        for file in unread:
            if not self.skip_corrupt:
                raise DataError(
                    f"{file}: cannot be read; replace it, or leave out such images with skip_corrupt: true"
                )
            if file not in self.corrupt:
                self.corrupt.add(file)
                _log.warning("%s: cannot be read and is left out (%d so far)", file, len(self.corrupt))


def _collate(samples: list[Sample]) -> tuple[Tensor | None, Tensor, list[str]]:
    read = [sample for sample in samples if not isinstance(sample, str)]
    images = torch.stack([image for image, _ in read]) if read else None
    return images, torch.tensor([label for _, label in read]), [s for s in samples if isinstance(s, str)]


def _prepare_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the training one decides
