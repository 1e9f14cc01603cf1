"""Batches from folders of image files, one folder per class, decoded by worker processes."""

from __future__ import annotations

import copy
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

from data.decoding import Unread, read_image
from data.loading import Loading
from data.normalise import Normalise
from genutil.devices import available_cpus
from genutil.distributed.rank_info import shard_slice
from genutil.exceptions import DataError

Transform = Callable[[Image.Image], Image.Image]
"""May use torch's global generator, which is seeded for each image."""
Sample = tuple[Tensor, int] | Unread
"""uint8 (channels, height, width) and its label, or the file that could not be read."""

_log = logging.getLogger(__name__)


def list_classes(folder: Path) -> list[str]:
    """Names of the classes, sorted: their indices are the labels. Hidden folders and those whose names begin
    with @ are left out.

    Raises:
        DataError: the folder is missing or has no classes.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: there is no such folder; it must hold one folder of images for each class"
        )
    names = sorted(
        entry.name for entry in os.scandir(folder) if not _is_left_out(entry.name) and entry.is_dir()
    )
    if not names:
        raise DataError(f"{folder}: holds no folders; it must hold one folder of images for each class")
    return names


def list_images(folder: Path, classes: Sequence[str]) -> list[tuple[str, int]]:
    """(file, label) of every image, by class and name; a label is an index of `classes`. Hidden files and the
    folders that `list_classes` leaves out are not read.

    Raises:
        DataError: a class has no images, or is not among `classes`.
    """
    labels = {name: label for label, name in enumerate(classes)}
    names = list_classes(folder)
    unknown = [name for name in names if name not in labels]
    if unknown:
        raise DataError(f"{folder}: has the class {unknown[0]}, which the training images lack")
    images: list[tuple[str, int]] = []
    for name in names:
        files = sorted(_image_files(folder / name))
        if not files:
            raise DataError(
                f"{folder / name}: has no images ({', '.join(IMG_EXTENSIONS)}); "
                "fill it, or remove it if there is no such class"
            )
        images += [(file, labels[name]) for file in files]
    return images


def _image_files(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not _is_left_out(name)]
        for file in files:
            if file.lower().endswith(IMG_EXTENSIONS) and not file.startswith("."):
                yield os.path.join(parent, file)


def _is_left_out(folder: str) -> bool:
    """Hidden folders (.ipynb_checkpoints) and those of network storage (@eaDir) hold no classes."""
    return folder.startswith((".", "@"))


def count_workers(workers: int | Literal["auto"]) -> int:
    """Loading processes to start, at most one per CPU. Batches do not depend on their number."""
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
        seed: of the transform's random numbers.
    """

    def __init__(self, images: Sequence[tuple[str, int]], transform: Transform, seed: int) -> None:
        # Arrays, not lists of objects: forked workers then share the memory of their parent.
        self.files = np.array([os.fsencode(file) for file, _ in images])
        self.labels = np.array([label for _, label in images], dtype=np.int64)
        self.transform, self.seed = transform, seed

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        epoch, index = item
        file = os.fsdecode(bytes(self.files[index]))
        image = read_image(file)
        if isinstance(image, Unread):
            return image
        numbers = np.random.SeedSequence([self.seed, epoch, index]).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(numbers[0] >> np.uint64(1)))
            image = self.transform(image)
        pixels = torch.from_numpy(np.atleast_3d(np.array(image)))  # grey images have two axes
        return pixels.permute(2, 0, 1).contiguous(), int(self.labels[index])


class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index), or their shards for one process.

    Attributes:
        epoch, start: of the next pass; set before it.
    """

    def __init__(self, num_images: int, batch_size: int, shuffle: bool, seed: int) -> None:
        self.num_images, self.batch_size, self.shuffle, self.seed = num_images, batch_size, shuffle, seed
        self.epoch = self.start = 0
        self.rank, self.size = 0, 1

    def __len__(self) -> int:
        return -(-self.num_images // self.batch_size)

    def shard(self, rank: int, size: int) -> EpochBatchSampler:
        """A copy with the shard of process `rank` of `size`."""
        shard = copy.copy(self)
        shard.rank, shard.size = rank, size
        return shard

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.arange(self.num_images)
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        for first in range(self.start * self.batch_size, self.num_images, self.batch_size):
            batch = order[first : first + self.batch_size]
            yield [(self.epoch, int(index)) for index in batch[shard_slice(len(batch), self.rank, self.size)]]


class FolderBatches:
    """Batches of image files. Batch b of epoch e depends on (seed, e, b) alone.

    Workers decode into uint8 and stay alive between epochs; batches go to the device as uint8, a quarter of
    the bytes, and are normalised there.

    Args:
        images: (file, label).
        transform: PIL image to PIL image of the network's size, RGB or grey.
        image_size: height and width of its results, in pixels.
        batch_size: images of a batch; the last one of an epoch may be shorter.
        normalise: uint8 to float32, on the device.
        loading: loading processes; the same object for all data sets of a run.
        shuffle: a new order in each epoch.
        seed: of order and transforms.

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
        loading: Loading,
        shuffle: bool,
        seed: int,
    ) -> None:
        self.normalise, self.image_size, self.num_images = normalise, image_size, len(images)
        self._loading = loading
        self._files = ImageFiles(images, transform, seed)
        self._sampler = EpochBatchSampler(len(images), batch_size, shuffle, seed)
        self._loader = self._make_loader()

    def __len__(self) -> int:
        return len(self._sampler)

    def shard(self, rank: int, size: int) -> FolderBatches:
        """A copy with the shard of process `rank` of `size` of each batch; this object does not change."""
        shard = copy.copy(self)
        shard._sampler = self._sampler.shard(rank, size)
        shard._loader = shard._make_loader()
        return shard

    def example_batch(self) -> tuple[Tensor, Tensor]:
        """A black image as in a batch, and all labels: no file is read."""
        shape = (1, self.normalise.channels, self.image_size, self.image_size)
        return self.normalise(torch.zeros(shape, dtype=torch.uint8)), torch.from_numpy(self._files.labels)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """float32 images (n, channels, height, width) and int64 labels (n), from batch `start` on.

        n is 0 where the shard of a batch is empty, or none of its images can be read.

        Raises:
            DataError: an image cannot be read, or with `skip_corrupt` none of them.
            RunError: loading processes are killed repeatedly, or too few files may be open.
        """
        any_read, first_unread = False, ""
        for images, labels, unread in self._loaded(epoch, start):
            for image in filter(self._loading.leave_out, unread):
                # By this module's logger: genutil.runs.run_folder lets its warnings pass in all processes.
                count = len(self._loading.corrupt)
                _log.warning("%s: %s and is left out (%d so far)", image.file, image.problem, count)
            any_read = any_read or images is not None
            first_unread = first_unread or "".join(image.file for image in unread[:1])
            if images is None:
                shape = (0, self.normalise.channels, self.image_size, self.image_size)
                images = torch.zeros(shape, dtype=torch.uint8)
            yield self.normalise(images), labels.to(self.normalise.device, non_blocking=True)
        if first_unread and not any_read:
            raise DataError(f"{first_unread}: neither this nor any other image can be read")

    def _make_loader(self) -> DataLoader[Any]:
        workers = self._loading.workers
        options: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": 4} if workers else {}
        return DataLoader(
            self._files,
            batch_sampler=self._sampler,
            num_workers=workers,
            collate_fn=self._loading.collate,
            pin_memory=self.normalise.device.type == "cuda",
            worker_init_fn=_prepare_worker,
            generator=torch.Generator(),  # else it draws from the global one, as dropout does
            **options,
        )

    def _loaded(self, epoch: int, start: int) -> Iterator[tuple[Tensor | None, Tensor, list[Unread]]]:
        """Batches of the loading processes. When one of them is lost, new ones begin at the missing batch."""
        number, lost_at = start, -1
        while True:
            self._sampler.epoch, self._sampler.start = epoch, number
            try:
                if self._loader.num_workers > self._loading.workers:  # reduced by another data set
                    self._loader = self._make_loader()
                for batch in _without_interruptions(self._loader):
                    yield self._loading.received(batch)
                    number += 1
                return
            except (OSError, RuntimeError) as error:
                self._loading.recover(error, number, again=lost_at == number)
                lost_at = number
                self._loader = self._make_loader()


def _without_interruptions(loader: DataLoader[Any]) -> Iterator[Any]:
    """An iterator over a loader that reports killed workers only when the next batch is requested.

    torch also sets a handler for SIGCHLD, which would raise its error in the middle of a training step.
    """
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)
    return iterator


def _prepare_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    # These reach all processes of a terminal or a job; the training process acts on them.
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
