"""Data-parallel training: each process computes the gradients of its shard; gradients are averaged."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from genutil.distributed.world import StepStatus, World
from genutil.seeding import preserve_rng_state
from genutil.signals import StopRequest


@dataclass(frozen=True)
class Microbatch:
    """Images of one forward and backward pass.

    Attributes:
        images: (n, channels, height, width). A process without images gets one blank image, because the
            other processes wait for its gradients and batch norms.
        labels: (n); empty for a blank image.
        index: index of the microbatch in the step, from 0.
        sync_context: makes the context of the forward and backward pass. In the context of the last
            microbatch, gradients are all-reduced.
    """

    images: Tensor
    labels: Tensor
    index: int
    sync_context: Callable[[], AbstractContextManager[Any]]
    _num_images: Callable[[], int]
    _num_processes: int

    @property
    def loss_weight(self) -> float:
        """Factor of the microbatch's mean loss, so that the sum over all microbatches and processes is the
        mean loss of the batch.

        It contains the number of processes, because DistributedDataParallel averages gradients. Reading it
        waits until all processes have begun the step; after the forward pass this takes little time.
        """
        return len(self.labels) * self._num_processes / max(self._num_images(), 1)


class DataParallelModel:
    """The network of a data-parallel training. Calling it runs the network.

    Args:
        network: the network, on the world's device. Weights and buffers of process 0 are broadcast to it.
        world: the processes of the run.
        stop: stop request of this process, all-reduced in each step with the number of images; a new one by
            default.
        autocast: makes the context of a forward pass.
    """

    def __init__(
        self,
        network: nn.Module,
        world: World,
        stop: StopRequest | None = None,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.network, self.world, self.stop, self._autocast = network, world, stop or StopRequest(), autocast
        self._status: Callable[[], StepStatus] = lambda: StepStatus(0, None)
        self._has_sync_batchnorm = any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())
        self._parallel: DistributedDataParallel | None = None
        self._has_buckets = False
        if world.size > 1:
            settings: dict[str, Any] = {"device_ids": [world.device]} if world.device.type == "cuda" else {}
            settings[_buffer_setting()] = False  # World.broadcast_buffers does it before they are read
            self._parallel = DistributedDataParallel(network, gradient_as_bucket_view=True, **settings)
            world.broadcast_buffers(network)

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = (self._parallel or self.network)(images)
        return logits

    def microbatches(self, images: Tensor, labels: Tensor, accumulate: int = 1) -> Iterator[Microbatch]:
        """This process's shard of a batch, in up to `accumulate` microbatches of nearly equal size.

        The sum of all losses, each times its `loss_weight`, has the gradients of the batch's mean loss.
        Microbatches without images are left out, unless other processes wait for their passes.
        """
        self._status = self.world.all_reduce_step_status(len(labels), self.stop.signum)
        pairs = list(zip(images.tensor_split(accumulate), labels.tensor_split(accumulate), strict=True))
        if self._parallel is not None and not self._has_buckets:
            self._build_buckets(self._parallel, pairs[0][0])
        if not self._has_sync_batchnorm:
            pairs = [pair for pair in pairs if len(pair[1])] or pairs[:1]
        for index, (micro_images, micro_labels) in enumerate(pairs):
            is_last = index == len(pairs) - 1
            yield Microbatch(
                micro_images if len(micro_labels) else _blank(images),
                micro_labels,
                index,
                nullcontext if self._parallel is None or is_last else self._parallel.no_sync,
                self.num_images,
                self.world.size,
            )

    def num_images(self) -> int:
        """Images of the current batch in all processes. Waits until all of them have begun the step."""
        return self._status().images

    def stop_signal(self) -> int | None:
        """The signal that stops all processes after the current step; None if there is none."""
        return self.stop.signum if self.world.size == 1 else self._status().signum

    def _build_buckets(self, parallel: DistributedDataParallel, images: Tensor) -> None:
        """A throw-away backward pass, after which the buckets of gradients have their final order.

        DistributedDataParallel finds the order in its first backward pass and uses it from the second one.
        With more than two processes the order decides the rounding, so the first step after a resume would
        differ from the same step of an uninterrupted training. RNG state, gradients and buffers are restored.
        """
        self._has_buckets = True
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        with preserve_rng_state(), warnings.catch_warnings():
            # Gradients of depthwise filters have the strides of channels-last maps; torch warns of it once.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            with self._autocast():
                logits = parallel(images if len(images) else _blank(images))
                loss = F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))
            loss.backward()  # type: ignore[no-untyped-call]
        self.network.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in self.network.named_buffers():
                buffer.copy_(buffers[name])


def _blank(images: Tensor) -> Tensor:
    """One image of zeros, of the size of these."""
    return images.new_zeros(1, *images.shape[1:])


def _buffer_setting() -> str:
    """Name of the argument that broadcasts buffers before a forward pass; it depends on torch's version."""
    arguments = inspect.signature(DistributedDataParallel).parameters
    return "forward_sync_buffers" if "forward_sync_buffers" in arguments else "broadcast_buffers"
