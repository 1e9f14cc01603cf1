"""What batches of a data class must look like: checked where they come in, reported with the class's name."""

from __future__ import annotations

import contextlib
import copy
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from genutil.errors import ConfigError, DataError
from genutil.seeding import preserve_rng_state
from trainers.batches import Batches, LoaderBatches

_OUT_OF_BOUNDS = re.compile(r"Target (-?\d+) is out of bounds")
"""What torch's cross-entropy says on the CPU."""


@dataclass(frozen=True)
class Expected:
    """What a network expects of batches.

    Attributes:
        source: the data class as the experiment names it: `data: module:Class`.
        num_classes: labels are below it; None where the network does not read `output_size`.
        in_channels: of the images; None where the network does not read the key: its images may have any
            shape and type.
        dtype: of the network's weights.
    """

    source: str
    num_classes: int | None = None
    in_channels: int | None = None
    dtype: torch.dtype = torch.float32

    def checked(self, batch: Any, part: str, first: bool) -> tuple[Tensor, Tensor]:
        """A batch with labels of int64 and floating-point images of `dtype`.

        Nothing waits for a GPU but the first batch: labels there are read once.

        Args:
            batch: what the source gave.
            part: `train` or `val`.
            first: whether it is the first batch, of which everything is checked.

        Raises:
            DataError: the batch has something else.
        """
        where = f"{self.source}: {part}"
        pair = isinstance(batch, (tuple, list)) and len(batch) == 2
        if not pair or not all(isinstance(part, Tensor) for part in batch):
            raise DataError(
                f"{where}: a batch must be two tensors, (images, labels), not {_described(batch)}"
            )
        images, labels = batch
        if labels.dim() == 2 and labels.shape[1] == 1:
            labels = labels.flatten()
        if labels.dim() != 1 or not images.dim() or len(labels) != len(images):
            raise DataError(
                f"{where}: labels must be one class number for each image, (n,), not {tuple(labels.shape)} "
                f"with images of shape {tuple(images.shape)}"
            )
        if labels.is_floating_point() or labels.is_complex():
            raise DataError(
                f"{where}: labels must be integers, the numbers of the classes, not {labels.dtype}; give "
                "labels.long()"
            )
        labels = labels.long()
        if len(labels) and (first or labels.device.type == "cpu"):
            self._check_range(labels, where)
        return self._checked_images(images, where), labels

    def check_example(self, example: tuple[Tensor, Tensor], part: str) -> None:
        """Check one image as in a batch, and all labels of a source.

        Raises:
            DataError: they are not what the network expects.
        """
        images, labels = example
        self.checked((images, labels[:1]), part, first=False)
        if len(labels):
            self._check_range(labels, f"{self.source}: {part}")

    def _check_range(self, labels: Tensor, where: str) -> None:
        lowest, highest = (int(label) for label in labels.aminmax())
        if lowest < 0 or (self.num_classes is not None and highest >= self.num_classes):
            raise self._wrong_label(where, lowest if lowest < 0 else highest)

    def _wrong_label(self, where: str, label: int) -> DataError:
        """The error of a label that the network has no output for."""
        allowed = "0 or more" if self.num_classes is None else f"within 0..{self.num_classes - 1}"
        remedy = "correct the labels"
        if label >= 0 and self.num_classes is not None:
            allowed += f" with output_size: {self.num_classes}"
            remedy += ", or set output_size to the number of classes"
        return DataError(f"{where}: labels must be {allowed}, not {label}; {remedy}")

    def _checked_images(self, images: Tensor, where: str) -> Tensor:
        if self.in_channels is not None:
            if images.dim() != 4 or images.shape[1] != self.in_channels:
                raise DataError(
                    f"{where}: images must have the shape (images, {self.in_channels}, height, width) with "
                    f"in_channels: {self.in_channels}, not {tuple(images.shape)}"
                )
            if not images.is_floating_point():
                raise DataError(
                    f"{where}: images must be floating-point numbers, not {images.dtype}; scale and "
                    "normalise them, such as (images / 255 - mean) / std, or give uint8 ones to "
                    "data.loaders:ImageBatches, which does so"
                )
        return images.to(self.dtype) if images.is_floating_point() else images


class CheckedBatches:
    """Batches that are checked and converted: see Expected.

    Args:
        whole: batches.
        expected: what they must look like.
        part: `train` or `val`.
    """

    def __init__(self, whole: Batches, expected: Expected, part: str) -> None:
        self.whole, self.expected, self.part = whole, expected, part
        self._first = True
        if hasattr(whole, "example_batch"):
            expected.check_example(whole.example_batch(), part)

    def __len__(self) -> int:
        return len(self.whole)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """As the whole gives them.

        Raises:
            DataError: a batch is not what the network expects.
        """
        for batch in self.whole.batches(epoch, start):
            images, labels = self.expected.checked(batch, self.part, self._first)
            self._first = self._first and not len(labels)
            yield images, labels

    def check_first(self) -> None:
        """Check the first batch now, without an effect on what is drawn at random later.

        Sources that would start processes for it, or that may not repeat, are checked when they are used.

        Raises:
            DataError: it is not what the network expects.
        """
        if hasattr(self.whole, "example_batch"):
            return
        if isinstance(self.whole, LoaderBatches) and getattr(self.whole.loader, "num_workers", None) != 0:
            return
        with _random_numbers_restored(self.whole):
            next(iter(self.batches(0)), None)


def expected_by(network: nn.Module, source: str, keys: Mapping[str, int]) -> Expected:
    """What a network expects of batches.

    Args:
        network: gives the type of the images.
        source: the data class as the experiment names it.
        keys: `output_size` and `in_channels`, as far as the network reads them.
    """
    types = (p.dtype for p in network.parameters() if p.is_floating_point())
    return Expected(source, keys.get("output_size"), keys.get("in_channels"), next(types, torch.float32))


def check_smallest_share(
    network: nn.Module, shape: tuple[int, int, int], num_images: int, batch_size: int, parts: int, size: int
) -> None:
    """Whether batch norms get more than one value of each channel in every step of an epoch.

    Where their maps have one pixel, a single image has no variance.

    Args:
        network: on its device.
        shape: (channels, height, width) of an image.
        num_images: of an epoch.
        batch_size: images of a step.
        parts: in which each process takes its share of a batch.
        size: processes.

    Raises:
        ConfigError: a process would see one image by itself.
    """
    shares = [batch // size for batch in {batch_size, num_images % batch_size} if batch]
    smallest = min(max(share // parts, min(share, 1)) for share in shares)
    if smallest < 2 and _norms_see_one_pixel(network, shape):
        raise ConfigError(
            f"batch_size: some step of {num_images} images leaves a process one image or none, of which "
            f"batch norms cannot take a variance at {shape[1]} pixels; give another batch_size, or a larger "
            "image_size"
        )


def _norms_see_one_pixel(network: nn.Module, shape: tuple[int, int, int]) -> bool:
    """Whether a batch norm gets maps of one pixel, found out by one black image."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    seen: list[bool] = []
    handles = [
        norm.register_forward_pre_hook(lambda _norm, inputs: seen.append(inputs[0][0, 0].numel() == 1))
        for norm in norms
    ]
    modes = {module: module.training for module in network.modules()}
    image = torch.zeros(1, *shape, device=next(network.parameters()).device)
    try:
        with torch.no_grad(), preserve_rng_state(), torch.compiler.set_stance("force_eager"):
            network.eval()(image)
    except Exception:  # it may be the user's code; the first batch shows whether it runs
        return False
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return any(seen)


@contextlib.contextmanager
def label_errors_explained(expected: Expected) -> Iterator[None]:
    """Within it, labels that only the loss finds out of range are reported with the data class.

    Raises:
        DataError: a label has no output of the network.
    """
    try:
        yield
    except (IndexError, RuntimeError) as error:
        found = _OUT_OF_BOUNDS.search(str(error))
        if found:
            raise DataError(
                f"{expected.source}: label {found[1]} has no output of the network; correct the labels, or "
                "give the network an output for each class"
            ) from error
        if "device-side assert" in str(error):
            raise DataError(
                f"{expected.source}: an index on the GPU is out of range, most often a label outside of the "
                "network's outputs; run on the CPU (--gpus without a number), which names it"
            ) from error
        raise


@contextlib.contextmanager
def _random_numbers_restored(source: Any) -> Iterator[None]:
    """Global generators, and those of a DataLoader, have the state afterwards that they had before."""
    loader = getattr(source, "loader", None)
    owners = (loader, getattr(loader, "sampler", None))
    generators = [
        g for owner in owners if isinstance(g := getattr(owner, "generator", None), torch.Generator)
    ]
    states = [generator.get_state() for generator in generators]
    python, legacy = random.getstate(), copy.deepcopy(np.random.get_state())
    try:
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _described(batch: Any) -> str:
    if isinstance(batch, (tuple, list)):
        return f"{type(batch).__name__} of ({', '.join(type(part).__name__ for part in batch)})"
    return type(batch).__name__
