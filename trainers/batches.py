"""What the trainer asks of a source of batches, and how plain PyTorch loaders fit in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Protocol

from torch import Tensor

from genutil.distributed.rank_info import shard_slice
from genutil.distributed.world import ALONE, World


class Batches(Protocol):
    """Batches of (images, labels) that repeat: batch b of epoch e is always the same.

    A source that several processes share may have `shard(rank, size)`, which gives one process's share of
    each batch for less than the whole would cost; see `share`. One that is slow to start may have
    `example_batch()`, which gives one image as in a batch, and all labels of the source.
    """

    def __len__(self) -> int:
        """Batches of an epoch."""
        ...

    def batches(self, epoch: int, start: int = 0) -> Iterable[tuple[Tensor, Tensor]]:
        """The batches of an epoch from number `start` on."""
        ...


class LoaderBatches:
    """A `torch.utils.data.DataLoader` as Batches. Exact resuming is up to its sampler's `set_epoch`."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        sampler = getattr(self.loader, "sampler", None)
        if sampler is not None and hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        return islice(iter(self.loader), start, None)


class ShardedBatches:
    """The share of one process of batches that each process makes whole."""

    def __init__(self, whole: Batches, rank: int, size: int) -> None:
        self.whole, self.rank, self.size = whole, rank, size

    def __len__(self) -> int:
        return len(self.whole)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.whole.batches(epoch, start):
            own = shard_slice(len(labels), self.rank, self.size)
            yield images[own], labels[own]


def corrupt_images(source: Any, world: World = ALONE) -> dict[str, int]:
    """How many images could not be read, as `corrupt_images`, for data sets that leave such ones out."""
    corrupt = set().union(*world.gather(set(getattr(source, "corrupt", ()))))
    return {"corrupt_images": len(corrupt)} if corrupt else {}


def as_batches(
    source: Any, world: World = ALONE, wrap: Callable[[Batches], Batches] = lambda batches: batches
) -> Batches:
    """A data set's `train` or `val` as this process's share of it.

    Args:
        source: the part of the data set.
        world: the processes that share it.
        wrap: put around what the source makes, whole batches or this process's share of each.
    """
    whole: Batches = source if hasattr(source, "batches") else LoaderBatches(source)
    if world.size > 1 and hasattr(whole, "shard"):
        return wrap(whole.shard(world.rank, world.size))
    whole = wrap(whole)
    return whole if world.size == 1 else ShardedBatches(whole, world.rank, world.size)


class LimitedBatches:
    """The first batches of each epoch.

    Args:
        whole: batches; of several processes, one's share.
        count: how many of an epoch are taken.
    """

    def __init__(self, whole: Batches, count: int) -> None:
        self.whole, self.count = whole, count

    def __len__(self) -> int:
        return min(len(self.whole), self.count)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        yield from islice(self.whole.batches(epoch, start), max(len(self) - start, 0))
