"""Batches as the trainer reads them: the interface, PyTorch loaders, shards of processes, devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from genutil.distributed.rank_info import shard_slice
from genutil.distributed.world import ALONE, World


@runtime_checkable
class Batches(Protocol):
    """Batches of (images, labels) that repeat: batch b of epoch e is always the same."""

    def __len__(self) -> int:
        """Batches of an epoch."""
        ...

    def batches(self, epoch: int, start: int = 0) -> Iterable[tuple[Tensor, Tensor]]:
        """The batches of an epoch, from number `start`."""
        ...


@runtime_checkable
class ShardableBatches(Batches, Protocol):
    """Batches that can load the shard of one process without loading the whole batch."""

    def shard(self, rank: int, size: int) -> Batches:
        """A copy with the shard of process `rank` of `size` of each batch; this object does not change."""
        ...


@runtime_checkable
class BatchesWithExample(Batches, Protocol):
    """Batches that can be checked before the first one is loaded."""

    def example_batch(self) -> tuple[Tensor, Tensor]:
        """One image as in a batch, and the labels of all images."""
        ...


class LoaderBatches:
    """A `torch.utils.data.DataLoader` as Batches. Exact resuming needs a sampler with `set_epoch`."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        set_epoch = getattr(getattr(self.loader, "sampler", None), "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)
        return islice(iter(self.loader), start, None)


class ShardedBatches:
    """The shard of one process, cut out of batches that each process loads as a whole."""

    def __init__(self, whole: Batches, rank: int, size: int) -> None:
        self.whole, self.rank, self.size = whole, rank, size

    def __len__(self) -> int:
        return len(self.whole)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.whole.batches(epoch, start):
            own_slice = shard_slice(len(labels), self.rank, self.size)
            yield images[own_slice], labels[own_slice]


class DeviceBatches:
    """Batches that are moved to a device. Those that are there already are not copied."""

    def __init__(self, source: Batches, device: torch.device) -> None:
        self.source, self.device = source, device

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.source.batches(epoch, start):
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


class LimitedBatches:
    """The first `count` batches of each epoch."""

    def __init__(self, source: Batches, count: int) -> None:
        self.source, self.count = source, count

    def __len__(self) -> int:
        return min(len(self.source), self.count)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        yield from islice(self.source.batches(epoch, start), max(len(self) - start, 0))


def as_batches(
    source: Any, world: World = ALONE, wrap: Callable[[Batches], Batches] = lambda batches: batches
) -> Batches:
    """The batches of a data set's `train` or `val` for this process, on its device.

    Args:
        source: Batches, or a DataLoader.
        world: the processes that share each batch.
        wrap: applied to what the source yields: shards if it is shardable, else whole batches.
    """
    batches: Batches = source if isinstance(source, Batches) else LoaderBatches(source)
    if world.size > 1 and isinstance(batches, ShardableBatches):
        batches = wrap(batches.shard(world.rank, world.size))
    else:
        batches = wrap(batches)
        if world.size > 1:
            batches = ShardedBatches(batches, world.rank, world.size)
    return batches if world.device.type == "cpu" else DeviceBatches(batches, world.device)


def corrupt_images(source: Any, world: World = ALONE) -> dict[str, int]:
    """Number of images that a data set has left out, as `corrupt_images`; empty if there are none.

    Args:
        source: data set; if it leaves images out, their files are its attribute `corrupt`.
        world: the processes whose images are counted together.
    """
    files = set().union(*world.gather(set(getattr(source, "corrupt", ()))))
    return {"corrupt_images": len(files)} if files else {}
