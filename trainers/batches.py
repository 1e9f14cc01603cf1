"""What the trainer asks of a source of batches, and how plain PyTorch loaders fit in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Protocol

from torch import Tensor


class Batches(Protocol):
    """Batches of (images, labels) that repeat: batch b of epoch e is always the same."""

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


def as_batches(source: Any) -> Batches:
    """A data set's `train` or `val` as Batches."""
    return source if hasattr(source, "batches") else LoaderBatches(source)
