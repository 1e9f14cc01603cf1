"""Batches from folders of image files: one folder a class, decoded by worker processes."""

from __future__ import annotations

import logging
import os
import signal
import threading
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
from genutil.devices import available_cpus
from genutil.errors import DataError, RunError
from genutil.place import share

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
    available = available_cpus()
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


class Order(Sampler[list[tuple[int, int]]]):
    """A process's share of batches of (epoch, index). `epoch` and `start` are set before each pass."""

    def __init__(self, num_images: int, batch_size: int, shuffle: bool, seed: int) -> None:
        self.num_images, self.batch_size, self.shuffle, self.seed = num_images, batch_size, shuffle, seed
        self.epoch = self.start = 0
        self.rank, self.size = 0, 1

    def __len__(self) -> int:
        return -(-self.num_images // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.arange(self.num_images)
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        for first in range(self.start * self.batch_size, self.num_images, self.batch_size):
            batch = order[first : first + self.batch_size]
            yield [(self.epoch, int(index)) for index in batch[share(len(batch), self.rank, self.size)]]


class FolderBatches:
    """Batches of image files. Batch b of epoch e depends on (seed, e, b) alone.

    Workers decode into uint8 and stay alive between epochs; batches go to the device as uint8, a quarter of
    the bytes, and are normalised there.

    Args:
        images: (file, label).
        transform: PIL image to PIL image of the network's size.
        image_size: height and width that it gives, in pixels.
        batch_size: images of a batch; the last one of an epoch may be shorter.
        normalise: uint8 to float32, on the device.
        workers: loading processes; 0: this one.
        shuffle: a new order in each epoch.
        seed: of order and transforms.
        skip_corrupt: leave out images that cannot be read; else the first one ends the run.
        corrupt: where the files that were left out are noted.

    Attributes:
        num_images: images of an epoch.
    """

    def __init__(
        self,
        images: Sequence[tuple[str, int]],
        transform: Transform,
        image_size: int,
        batch_size: int,
        normalise: Normalise,
        workers: int,
        shuffle: bool,
        seed: int,
        skip_corrupt: bool,
        corrupt: set[str],
    ) -> None:
        self.normalise, self.skip_corrupt, self.corrupt = normalise, skip_corrupt, corrupt
        self.image_size, self.workers, self.num_images = image_size, workers, len(images)
        self._files = ImageFiles(images, transform, seed)
        self._order = Order(len(images), batch_size, shuffle, seed)
        self._loader = self._make_loader()

    def __len__(self) -> int:
        return len(self._order)

    def shard(self, rank: int, size: int) -> FolderBatches:
        """From now on, give only the share of process `rank` of `size` of each batch."""
        self._order.rank, self._order.size = rank, size
        return self

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """float32 images (n, 3, height, width) and int64 labels (n), from batch `start` on.

        n is 0 where a process has no share in a batch, or no image of it can be read.

        Raises:
            DataError: an image cannot be read, or with `skip_corrupt` none of them.
            RunError: loading processes are killed again and again.
        """
        any_read, left_out = False, ""
        for images, labels, unread in self._loaded(epoch, start):
            self._note(unread)
            any_read = any_read or images is not None
            left_out = left_out or "".join(unread[:1])
            if images is None:
                images = torch.zeros(0, 3, self.image_size, self.image_size, dtype=torch.uint8)
            yield self.normalise(images), labels.to(self.normalise.device, non_blocking=True)
        if left_out and not any_read:
            raise DataError(f"{left_out}: neither this nor any other image can be read")

    def _make_loader(self) -> DataLoader[Any]:
        more: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": 4} if self.workers else {}
        return DataLoader(
            self._files,
            batch_sampler=self._order,
            num_workers=self.workers,
            collate_fn=_collate,
            pin_memory=self.normalise.device.type == "cuda",
            worker_init_fn=_prepare_worker,
            generator=torch.Generator(),  # else it draws from the global one, as dropout does
            **more,
        )

    def _loaded(self, epoch: int, start: int) -> Iterator[tuple[Tensor | None, Tensor, list[str]]]:
        """What the workers give. When one is killed, new ones begin at the batch that is missing."""
        number, lost_at = start, -1
        while True:
            self._order.epoch, self._order.start = epoch, number
            try:
                for batch in _without_interruptions(self._loader):
                    yield batch
                    number += 1
                return
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                if lost_at == number:
                    raise RunError(
                        f"loading processes were killed twice at batch {number} ({error}); most often there "
                        f"is too little memory for {self.workers} of them: start fewer with --workers"
                    ) from error
                lost_at = number
                _log.warning(
                    "a loading process was killed (%s); starting new ones at batch %d", error, number
                )
                self._loader = self._make_loader()

    def _note(self, unread: list[str]) -> None:
        for file in unread:
            if not self.skip_corrupt:
                raise DataError(
                    f"{file}: cannot be read; replace it, or leave out such images with --skip_corrupt"
                )
            if file not in self.corrupt:
                self.corrupt.add(file)
                _log.warning("%s: cannot be read and is left out (%d so far)", file, len(self.corrupt))


def _without_interruptions(loader: DataLoader[Any]) -> Iterator[Any]:
    """An iterator over a loader that tells of killed workers when it is asked for a batch, and only then.

    torch also sets a handler for SIGCHLD, which would raise its error in the middle of a training step.
    """
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)
    return iterator


def _collate(samples: list[Sample]) -> tuple[Tensor | None, Tensor, list[str]]:
    read = [sample for sample in samples if not isinstance(sample, str)]
    images = torch.stack([image for image, _ in read]) if read else None
    return images, torch.tensor([label for _, label in read]), [s for s in samples if isinstance(s, str)]


def _prepare_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the training one decides
