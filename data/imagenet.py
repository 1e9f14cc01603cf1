"""ImageNet: 1.28 million photographs in a thousand classes, or other images in such folders."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torchvision.transforms import v2

from data.dali import DaliBatches
from data.dataset import ImageDataset
from data.image_folder import FolderBatches, Transform, count_workers, list_classes, list_images
from data.loading import Loading
from data.normalise import Normalise, channel_statistics
from genutil.exceptions import DataError

_log = logging.getLogger(__name__)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(eq=False, repr=False)
class ImageFolders(ImageDataset):
    """Images in `<data_dir>/train/<class>/` and `<data_dir>/val/<class>/`.

    Training: a random crop (8 to 100 % of the image's area, 3:4 to 4:3) resized to the network's size, and
    mirrored at random. Validation: the shorter side resized to 8/7 of the network's size (256 pixels for
    224), and the centre crop.

    Args:
        data_dir: holds `train` and `val`.
        batch_size, test_batch_size, seed: see ImageDataset.
        image_size: height and width for the network, in pixels.
        device: where batches are normalised.
        in_channels: 3, or 1 for grey.
        output_size: classes of the network; the folders may have fewer, not more.
        workers: loading processes; `auto`: one for each CPU.
        evaluate: the training images are not needed.
        validation: the validation images are needed.
        data_backend: loading processes, or DALI on the CPU or on a GPU (for 3 channels).
        skip_corrupt: leave out images that cannot be read; else the first one ends the run.

    Attributes:
        train, val: batches; `train` is None where `evaluate` is set, `val` where neither `validation` nor
            `evaluate` is.

    Raises:
        DataError: a folder is missing, a class is empty, there are too many classes, or `in_channels` is
            neither 1 nor 3.
        ConfigError: DALI cannot be used.
    """

    image_size: int = 224
    output_size: int = 1000
    workers: int | Literal["auto"] = "auto"
    evaluate: bool = False
    skip_corrupt: bool = False
    validation: bool = True
    data_backend: Literal["pytorch", "dali-cpu", "dali-gpu"] = "pytorch"
    train: FolderBatches | DaliBatches | None = field(default=None, init=False)
    val: FolderBatches | DaliBatches | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        train, val, classes = find_folders(self._folder(), self.output_size, self.evaluate)
        self._loading = Loading(count_workers(self.workers), self.skip_corrupt)
        if not self.evaluate:
            self.train = self._batches(list_images(train, classes), self.batch_size, training=True)
        if self.validation or self.evaluate:
            size = self.test_batch_size or self.batch_size
            self.val = self._batches(list_images(val, classes), size, training=False)

    def _folder(self) -> Path:
        """The folder with `train` and `val`."""
        return Path(self.data_dir).expanduser()

    def _batches(
        self, files: list[tuple[str, int]], batch_size: int, training: bool
    ) -> FolderBatches | DaliBatches:
        normalise = Normalise(*channel_statistics(MEAN, STD, self.in_channels), self.device)
        if self.data_backend != "pytorch":
            on_gpu, threads = self.data_backend == "dali-gpu", count_workers(self.workers)
            return DaliBatches(
                files, self.image_size, batch_size, normalise, threads, training, self.seed, on_gpu
            )
        crop = (training_crop if training else centre_crop)(self.image_size, self.in_channels)
        return FolderBatches(
            files, crop, self.image_size, batch_size, normalise, self._loading, training, self.seed
        )

    @property
    def corrupt(self) -> set[str]:
        """Files that were left out so far."""
        return self._loading.corrupt


class ImageNet(ImageFolders):
    """Images in `<data_dir>/imagenet/train/<class>/` and `…/val/<class>/`: see ImageFolders.

    `data_dir` may also have the folders `train` and `val` itself, as with main.py.
    Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", 2015.

    Raises:
        DataError: see ImageFolders; or `data_dir` has both `imagenet` and `train` or `val`.
    """

    name = "ImageNet"

    def _folder(self) -> Path:
        data_dir = super()._folder()
        folder = data_dir / "imagenet"
        own = [name for name in ("train", "val") if (data_dir / name).is_dir()]
        if own and folder.is_dir():
            raise DataError(
                f"{data_dir}: has the folders imagenet and {' and '.join(own)}, so the images are not known; "
                f"name {folder}, or move it to another folder"
            )
        return data_dir if own else folder


def find_folders(folder: Path, output_size: int, evaluate: bool) -> tuple[Path, Path, list[str]]:
    """Folders of the training and validation images, and names of the classes.

    Raises:
        DataError: a folder is missing, or there are more than `output_size` classes.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: there is no such folder; put ImageNet's images into {folder / 'train'} and "
            f"{folder / 'val'}, one folder for each class, or name another folder of data"
        )
    train, val = folder / "train", folder / "val"
    # Labels are indices of the training classes, also where only some of them are evaluated.
    classes = list_classes(train if train.is_dir() or not evaluate else val)
    if len(classes) > output_size:
        raise DataError(f"{folder}: has {len(classes)} classes, but the network has {output_size}")
    if len(classes) < output_size:
        _log.warning(
            "%s: has %d classes and the network %d; labels are indices of the folders' classes",
            folder, len(classes), output_size,
        )  # fmt: skip
    return train, val, classes


def training_crop(image_size: int, channels: int = 3) -> v2.Compose:
    """Random crop and flip; PIL image to PIL image, grey with one channel."""
    transforms = [v2.RandomResizedCrop(image_size, antialias=True), v2.RandomHorizontalFlip()]
    return v2.Compose([*transforms, *_grey(channels)])


def centre_crop(image_size: int, channels: int = 3) -> v2.Compose:
    """Centre crop with the published margin, 224 of 256 pixels; grey with one channel."""
    transforms = [v2.Resize(round(image_size * 256 / 224), antialias=True), v2.CenterCrop(image_size)]
    return v2.Compose([*transforms, *_grey(channels)])


def _grey(channels: int) -> list[Transform]:
    return [v2.Grayscale()] if channels == 1 else []
