"""Training steps as CUDA graphs, launched as a whole, so that small networks do not wait for Python.

Not measured on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainers.criterion import Criterion, MixupBatch
from trainers.precision import Precision

StepFunction = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Updates the weights by images and labels; returns loss and logits."""
Recorded = tuple[Callable[[], None], tuple[Tensor, Tensor]]
"""A function that replays a step, and the tensors of loss and logits that each replay overwrites."""

_WARM_UP = 3
"""Steps of a shape before it is recorded: libraries choose algorithms and allocate memory in them."""


def whole_batch_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, criterion: Criterion, precision: Precision
) -> StepFunction:
    """The step of one process, with one microbatch and without mixup."""

    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        optimizer.zero_grad(set_to_none=True)
        with precision.autocast():
            logits = model(images)
            loss = criterion(logits, MixupBatch(images, labels))
        precision.backward(loss)
        precision.step(optimizer)
        return loss.detach(), logits.detach()

    return step


class CapturedStep:
    """Records a step after several batches of one shape, and replays it for that shape.

    Batches of other shapes, such as a shorter last one, are run without a graph.

    Args:
        step: must do the same operations in each call, and must not wait for the device. Values that change
            from step to step must be read from tensors, as the learning rate is.
        record: makes a graph of a call.
        run_plainly: runs a call without a graph.
    """

    def __init__(
        self,
        step: StepFunction,
        record: Callable[[Callable[[], tuple[Tensor, Tensor]]], Recorded] | None = None,
        run_plainly: Callable[[Callable[[], tuple[Tensor, Tensor]]], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self._step = step
        self._record, self._run_plainly = record or record_graph, run_plainly or run_on_side_stream
        self._counts: dict[tuple[torch.Size, torch.dtype, torch.Size], int] = {}
        self._images: Tensor | None = None
        self._labels: Tensor
        self._replay: Callable[[], None]
        self._results: tuple[Tensor, Tensor]

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(loss, logits) of a batch on the device. Both may be overwritten by the next call."""
        shape = images.shape, images.dtype, labels.shape
        if self._images is None and self._counts.get(shape, 0) >= _WARM_UP:
            self._images, self._labels = images.clone(), labels.clone()
            inputs = self._images, self._labels
            self._replay, self._results = self._record(lambda: self._step(*inputs))
        if self._images is None or shape != (self._images.shape, self._images.dtype, self._labels.shape):
            self._counts[shape] = self._counts.get(shape, 0) + 1
            return self._run_plainly(lambda: self._step(images, labels))
        self._images.copy_(images, non_blocking=True)
        self._labels.copy_(labels, non_blocking=True)
        self._replay()
        return self._results


def record_graph(run: Callable[[], tuple[Tensor, Tensor]]) -> Recorded:
    """A CUDA graph of a call. Nothing is computed before its first replay."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()
    return graph.replay, results


def run_on_side_stream(run: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """A call on a side stream: autograd's buffers must not belong to the default stream before a capture."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        results = run()
    torch.cuda.current_stream().wait_stream(stream)
    for result in results:
        result.record_stream(torch.cuda.current_stream())
    return results


def obstacle_to_capture(
    optimizer: torch.optim.Optimizer, device: torch.device, amp: str | None, processes: int
) -> str | None:
    """Why the steps of a training cannot be CUDA graphs, apart from the network; None if they can."""
    if device.type != "cuda":
        return f"the network is on {device}, and CUDA graphs need a GPU"
    if processes > 1:
        return "several processes exchange gradients"
    if amp == "fp16":
        return "fp16 skips steps whose gradients overflow; choose --amp bf16"
    if not isinstance(optimizer, torch.optim.SGD) or not optimizer.defaults["fused"]:
        return f"{type(optimizer).__name__} may read its learning rate on the host; choose --optimizer sgd"
    return None
