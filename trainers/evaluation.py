"""Evaluation: every image of a set exactly once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from genutil.distributed.world import ALONE, World
from genutil.signals import StopRequest
from trainers.batches import Batches
from trainers.latency import TimedModel
from trainers.metrics import Meter
from trainers.precision import Precision
from trainers.progress import BatchProgress, Clock


def evaluate_and_time(
    network: nn.Module,
    batches: Batches,
    topk: Sequence[int],
    precision: Precision,
    world: World,
    stop: StopRequest,
    clock: Clock = time.monotonic,
) -> dict[str, Any]:
    """`evaluate`, its progress shown, stopped by signals; also `images`, `latency_ms` of an image and
    `batch_ms` of a full batch.

    Args:
        network: on the world's device.
        batches: what to evaluate: this process's share.
        topk: which accuracies to count.
        precision: how the network calculates.
        world: the processes that evaluate together.
        stop: notes signals.
        clock: see BatchProgress.

    Raises:
        NotFiniteError: a weight is NaN.
        Interrupted: a signal asked one of several processes to stop.
    """
    timed = TimedModel(network, world.device)
    progress = BatchProgress(
        "evaluation", len(batches), shown=world.is_main, processes=world.size, clock=clock
    )

    def after_batch(images: int, meter: Meter) -> None:
        progress.advance(images, meter.own_loss)
        world.raise_if_stopped(stop)

    with progress, precision.autocast():
        metrics = evaluate(timed, batches, topk, world.device, after_batch, world)
    results: dict[str, Any] = {**metrics, "images": sum(world.gather(timed.num_images))}
    results["latency_ms"] = 1000 * timed.seconds_per_image()
    times = [1000 * seconds for seconds in timed.seconds_per_batch()]
    if times:
        results["batch_ms"] = {"median": statistics.median(times), "min": min(times), "max": max(times)}
    return results


def evaluate(
    model: nn.Module,
    batches: Batches,
    topk: Sequence[int],
    device: torch.device,
    after_batch: Callable[[int, Meter], object] | None = None,
    world: World = ALONE,
) -> dict[str, float]:
    """Mean cross-entropy (`CELoss`) and top-k accuracies (percent) over all images of all processes.

    The model's mode is put back afterwards.

    Args:
        model: the network, on `device`.
        batches: what to evaluate: this process's share.
        topk: which accuracies to count.
        device: where the batches are used.
        after_batch: called after each batch with the number of its images in this process, and with the
            metrics so far; may raise to end the evaluation.
        world: the processes that evaluate together.

    Raises:
        NotFiniteError: a weight is NaN.
    """
    was_training = model.training
    model.eval()
    meter = Meter(topk, device, world)
    try:
        with torch.no_grad():
            for images, labels in batches.batches(0):
                images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
                if len(labels):
                    logits = model(images)
                    meter.update(F.cross_entropy(logits, labels), logits, labels)
                if after_batch is not None:
                    after_batch(len(labels), meter)
    finally:
        model.train(was_training)
    return meter.read()
