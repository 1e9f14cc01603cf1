"""Checks of the batches of a data class: types, shapes, labels. Messages name the class."""

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

from genutil.exceptions import ConfigError, DataError
from genutil.seeding import preserve_rng_state
from trainers.batches import Batches, BatchesWithExample, LoaderBatches

_OUT_OF_BOUNDS = re.compile(r"Target (-?\d+) is out of bounds")
"""Error of torch's cross-entropy on the CPU."""


@dataclass(frozen=True)
class BatchSpec:
    """Batches that a network can be trained on.

    Attributes:
        source: the data class as the experiment names it: `data: module:Class`.
        num_classes: upper bound of the labels; None where the network does not read `output_size`.
        in_channels: channels of the images; None where the network does not read the key: then its images
            may have any shape and type.
        dtype: of the network's weights.
    """

    source: str
    num_classes: int | None = None
    in_channels: int | None = None
    dtype: torch.dtype = torch.float32

    def checked(self, batch: Any, split: str, first: bool) -> tuple[Tensor, Tensor]:
        """The batch with int64 labels and floating-point images of `dtype`.

        Labels on a GPU are checked in the first batch only, since reading them waits for the device.

        Args:
            batch: what the source yields.
            split: `train` or `val`.
            first: whether it is the first batch.

        Raises:
            DataError: it is not such a batch, and cannot be converted.
        """
        where = f"{self.source}: {split}"
        pair = isinstance(batch, (tuple, list)) and len(batch) == 2
        if not pair or not all(isinstance(tensor, Tensor) for tensor in batch):
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

    def check_example(self, example: tuple[Tensor, Tensor], split: str) -> None:
        """Check one image as in a batch, and all labels of a source.

        Raises:
            DataError: the network cannot be trained on them.
        """
        images, labels = example
        self.checked((images, labels[:1]), split, first=False)
        if len(labels):
            self._check_range(labels, f"{self.source}: {split}")

    def _check_range(self, labels: Tensor, where: str) -> None:
        lowest, highest = (int(label) for label in labels.aminmax())
        if lowest < 0 or (self.num_classes is not None and highest >= self.num_classes):
            raise self._wrong_label(where, lowest if lowest < 0 else highest)

    def _wrong_label(self, where: str, label: int) -> DataError:
        """Error for a label without an output of the network."""
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
                    "normalise them, such as (images / 255 - mean) / std, or use data.loaders:ImageBatches, "
                    "which does so with uint8 images"
                )
        return images.to(self.dtype) if images.is_floating_point() else images


class CheckedBatches:
    """Batches that are checked and converted by a BatchSpec.

    Args:
        source: the batches.
        spec: their types, shapes and labels.
        split: `train` or `val`.
    """

    def __init__(self, source: Batches, spec: BatchSpec, split: str) -> None:
        self.source, self.spec, self.split = source, spec, split
        self._first = True
        if isinstance(source, BatchesWithExample):
            spec.check_example(source.example_batch(), split)

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, from number `start`.

        Raises:
            DataError: the network cannot be trained on a batch.
        """
        for batch in self.source.batches(epoch, start):
            images, labels = self.spec.checked(batch, self.split, self._first)
            self._first = self._first and not len(labels)
            yield images, labels

    def check_first(self) -> None:
        """Check the first batch now; random numbers that are drawn later stay the same.

        Sources that would start processes for it, or that may not repeat, are checked when they are used.

        Raises:
            DataError: the network cannot be trained on it.
        """
        if isinstance(self.source, BatchesWithExample):
            return
        if isinstance(self.source, LoaderBatches) and getattr(self.source.loader, "num_workers", None) != 0:
            return
        with _preserve_generators(self.source):
            next(iter(self.batches(0)), None)


def batch_spec(network: nn.Module, source: str, sizes: Mapping[str, int]) -> BatchSpec:
    """Batches that a network can be trained on.

    Args:
        network: its weights have the type of the images.
        source: the data class as the experiment names it.
        sizes: values of the keys `output_size` and `in_channels`, if the network reads them.
    """
    types = (p.dtype for p in network.parameters() if p.is_floating_point())
    return BatchSpec(source, sizes.get("output_size"), sizes.get("in_channels"), next(types, torch.float32))


def check_smallest_shard(
    network: nn.Module,
    shape: tuple[int, int, int],
    num_images: int,
    batch_size: int,
    accumulate: int,
    num_processes: int,
) -> None:
    """Check that batch norms get more than one value of each channel in every step of an epoch.

    The variance of a single image is not defined if its maps have one pixel.

    Args:
        network: the network, on its device.
        shape: (channels, height, width) of an image.
        num_images: images of an epoch.
        batch_size: images of a step.
        accumulate: microbatches of a process in a step.
        num_processes: processes.

    Raises:
        ConfigError: a microbatch would have a single image.
    """
    shards = [batch // num_processes for batch in {batch_size, num_images % batch_size} if batch]
    smallest = min(max(shard // accumulate, min(shard, 1)) for shard in shards)
    if smallest < 2 and _has_norm_of_one_pixel(network, shape):
        raise ConfigError(
            f"batch_size: in a step of an epoch of {num_images} images, a process has one image or none, of "
            f"which a batch norm gets a single value of each channel (image_size: {shape[1]}), which has no "
            "variance; choose another batch_size, or a larger image_size"
        )


def _has_norm_of_one_pixel(network: nn.Module, shape: tuple[int, int, int]) -> bool:
    """Whether a batch norm gets maps of one pixel, by a forward pass of one black image."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    are_single: list[bool] = []
    handles = [
        norm.register_forward_pre_hook(lambda _norm, inputs: are_single.append(inputs[0][0, 0].numel() == 1))
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
    return any(are_single)


@contextlib.contextmanager
def label_errors_explained(spec: BatchSpec) -> Iterator[None]:
    """Context manager that converts errors of the loss about labels out of range: they name the data class.

    Raises:
        DataError: a label has no output of the network.
    """
    try:
        yield
    except (IndexError, RuntimeError) as error:
        match = _OUT_OF_BOUNDS.search(str(error))
        if match:
            raise DataError(
                f"{spec.source}: label {match[1]} has no output of the network; correct the labels, or "
                "give the network an output for each class"
            ) from error
        if "device-side assert" in str(error):
            raise DataError(
                f"{spec.source}: an index on the GPU is out of range, most often a label outside of the "
                "network's outputs; run on the CPU (--gpus without a number), which names it"
            ) from error
        raise


@contextlib.contextmanager
def _preserve_generators(source: Any) -> Iterator[None]:
    """Context manager that restores the global generators and those of a DataLoader."""
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
        return f"{type(batch).__name__} of ({', '.join(type(item).__name__ for item in batch)})"
    return type(batch).__name__
