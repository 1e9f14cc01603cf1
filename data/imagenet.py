"""ImageNet: 1.28 million photographs in a thousand classes, or any other set of images in such folders."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import torch
from torchvision.transforms import v2

from data.dali import DaliBatches
from data.image_folder import FolderBatches, Transform, count_workers, list_classes, list_images
from data.loading import Loading
from data.normalise import Normalise, channel_statistics
from genutil.errors import DataError

_log = logging.getLogger(__name__)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageFolders:
    """Images in `<data_dir>/train/<class>/` and `<data_dir>/val/<class>/`.

    Training: a random part of the image (8 to 100 % of its area, 3:4 to 4:3) resized to the network's size,
    and mirrored at random. Validation: the shorter side resized to 8/7 of the network's size (256 pixels for
    224), and the centre of it.

    Args:
        data_dir: holds `train` and `val`, in the class's `subfolder`.
        batch_size, test_batch_size: images of a training and of a validation batch.
        image_size: height and width for the network, in pixels.
        output_size: classes of the network; there may be fewer in the folders, not more.
        workers: loading processes; `auto`: one for each CPU.
        seed: of order, crops and flips.
        evaluate: the training images are not needed.
        validation: the validation images are needed.
        in_channels: 3, or 1 for grey.
        data_backend: what decodes: loading processes, or DALI on the CPU or on the GPU, for 3 channels.
        skip_corrupt: leave out images that cannot be read; else the first one ends the run.
        device: where batches are normalised.

    Attributes:
        train, val: batches; `train` is None where `evaluate` is set, `val` where nothing is validated.
        corrupt: files that were left out.

    Raises:
        DataError: a folder is missing, a class is empty, there are too many classes, or `in_channels` is
            neither 1 nor 3.
        ConfigError: DALI cannot be used.
    """

    subfolder = ""

    def __init__(
        self,
        data_dir: str | Path,
        batch_size: int,
        test_batch_size: int | None = None,
        image_size: int = 224,
        output_size: int = 1000,
        workers: int | Literal["auto"] = "auto",
        seed: int = 0,
        evaluate: bool = False,
        skip_corrupt: bool = False,
        device: torch.device | str = "cpu",
        validation: bool = True,
        in_channels: int = 3,
        data_backend: Literal["pytorch", "dali-cpu", "dali-gpu"] = "pytorch",
    ) -> None:
        normalise = Normalise(*channel_statistics(MEAN, STD, in_channels), device)
        folder = Path(data_dir).expanduser() / self.subfolder
        train, val, classes = find_folders(folder, output_size, evaluate)
        self.corrupt: set[str] = set()
        count = count_workers(workers)
        loading = Loading(count) if data_backend == "pytorch" else None

        def batches(images: Path, training: bool, size: int) -> FolderBatches | DaliBatches:
            files = list_images(images, classes)
            if loading is None:
                on_gpu = data_backend == "dali-gpu"
                return DaliBatches(files, image_size, size, normalise, count, training, seed, on_gpu)
            crop = training_crop if training else centre_crop
            return FolderBatches(
                files, crop(image_size, in_channels), image_size, size, normalise, loading,
                shuffle=training, seed=seed, skip_corrupt=skip_corrupt, corrupt=self.corrupt,
            )  # fmt: skip

        self.train = None if evaluate else batches(train, True, batch_size)
        self.val = batches(val, False, test_batch_size or batch_size) if validation or evaluate else None


class ImageNet(ImageFolders):
    """Images in `<data_dir>/imagenet/train/<class>/` and `…/val/<class>/`: see ImageFolders.

    Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", 2015.
    """

    name = "ImageNet"
    subfolder = "imagenet"


def find_folders(folder: Path, output_size: int, evaluate: bool) -> tuple[Path, Path, list[str]]:
    """The folders of the training and validation images, and the names of the classes.

    Raises:
        DataError: a folder is missing, or there are more than `output_size` classes.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: there is no such folder; put ImageNet's images into {folder / 'train'} and "
            f"{folder / 'val'}, one folder for each class, or name another folder of data"
        )
    train, val = folder / "train", folder / "val"
    # Labels are places among the training classes, also where only some of them are evaluated.
    classes = list_classes(train if train.is_dir() or not evaluate else val)
    if len(classes) > output_size:
        raise DataError(f"{folder}: has {len(classes)} classes, but the network has {output_size}")
    if len(classes) < output_size:
        _log.warning(
            "%s: has %d classes and the network %d; labels are places among those in the folders",
            folder, len(classes), output_size,
        )  # fmt: skip
    return train, val, classes


def training_crop(image_size: int, channels: int = 3) -> v2.Compose:
    """A random part of an image, mirrored at random; PIL image to PIL image, grey with one channel."""
    steps = [v2.RandomResizedCrop(image_size, antialias=True), v2.RandomHorizontalFlip()]
    return v2.Compose([*steps, *_grey(channels)])


def centre_crop(image_size: int, channels: int = 3) -> v2.Compose:
    """The centre of an image, with the published margin: 224 of 256 pixels; grey with one channel."""
    steps = [v2.Resize(round(image_size * 256 / 224), antialias=True), v2.CenterCrop(image_size)]
    return v2.Compose([*steps, *_grey(channels)])


def _grey(channels: int) -> list[Transform]:
    return [v2.Grayscale()] if channels == 1 else []
