"""One network on all processes of a run: each takes its share of a batch, and the gradients are added up."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from genutil.distributed.world import World
from genutil.seeding import preserve_rng_state
from trainers.sync_bn import SharedBatchNorm


class Replicas:
    """The network of this process, kept equal to those of the others.

    Called, it is the network. A loss is to be multiplied by `weight`; then the gradients that its backward
    pass leaves are those of the mean over the whole batch, on all processes.

    Args:
        network: on the world's device. It gets the weights and buffers of process 0.
        world: the processes.
    """

    def __init__(self, network: nn.Module, world: World) -> None:
        self.network, self.world = network, world
        self._parallel: DistributedDataParallel | None = None
        self._settled = False
        norms = (SharedBatchNorm, nn.SyncBatchNorm)
        self._has_talking_norms = any(isinstance(module, norms) for module in network.modules())
        if world.size > 1:
            settings: dict[str, Any] = {"device_ids": [world.device]} if world.device.type == "cuda" else {}
            settings[_sync_buffers()] = False  # done before they are read: in evaluation and in checkpoints
            self._parallel = DistributedDataParallel(network, gradient_as_bucket_view=True, **settings)
            world.broadcast_buffers(network)

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = (self._parallel or self.network)(images)
        return logits

    def weight(self, part: int, total: int) -> float:
        """Of the mean loss of `part` images out of `total`; the processes' gradients are averaged."""
        return part * self.world.size / max(total, 1)

    def backward_of_part(self, last: bool) -> AbstractContextManager[Any]:
        """For forward and backward of a part of the share; the gradients are exchanged with the last one."""
        if self._parallel is None or last:
            return nullcontext()
        return self._parallel.no_sync()

    def settle(self, images: Tensor) -> None:
        """Before the first step: let the order in which gradients are exchanged be chosen.

        It is chosen in the first backward pass and used from the second on. Where more than two processes add
        up, the order decides the rounding, so a training that goes on from a checkpoint would differ in its
        first step from one that was never stopped. Nothing of this pass remains.
        """
        if self._parallel is None or self._settled:
            return
        self._settled = True
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        with preserve_rng_state(), warnings.catch_warnings():
            # Told once, here: gradients of depthwise filters lie in memory as the fast layout has them.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            logits = self(images if len(images) else _blank(images))
            loss = F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))
            loss.backward()  # type: ignore[no-untyped-call]
        self.network.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in self.network.named_buffers():
                buffer.copy_(buffers[name])

    def parts(self, images: Tensor, labels: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor, bool]]:
        """This process's share in up to `count` parts of nearly equal size; true for the last one.

        A part without images is left out. Where the others would wait for it, it is a blank image, with no
        label to count: for a process without any image, and in all parts if batch norms talk to each other.
        """
        split = list(zip(images.tensor_split(count), labels.tensor_split(count), strict=True))
        if not self._has_talking_norms:
            split = [part for part in split if len(part[1])] or split[:1]
        for number, (some, theirs) in enumerate(split, start=1):
            yield some if len(theirs) else _blank(images), theirs, number == len(split)


def _blank(images: Tensor) -> Tensor:
    """One image of zeros, of the size of these."""
    return images.new_zeros(1, *images.shape[1:])


def _sync_buffers() -> str:
    """What says whether buffers are made equal before each forward pass; torch has renamed it."""
    known = inspect.signature(DistributedDataParallel).parameters
    return "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
