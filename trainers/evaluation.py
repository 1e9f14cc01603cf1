"""Evaluation of a network: loss and accuracies over every image of a data set, exactly once."""

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
    """`evaluate` with a progress bar. Adds `images`, `latency_ms` per image, `batch_ms` per full batch.

    Args:
        network: on the world's device.
        batches: this process's shards, on the world's device.
        topk: the accuracies to count.
        precision: mixed precision.
        world: the processes that evaluate together.
        stop: records signals.
        clock: see BatchProgress.

    Raises:
        NotFiniteError: a weight is NaN.
        Interrupted: a signal stopped one of several processes.
    """
    timed = TimedModel(network, world.device)
    progress = BatchProgress(
        "evaluation", len(batches), visible=world.is_main, processes=world.size, clock=clock
    )

    def after_batch(images: int, meter: Meter) -> None:
        progress.advance(images, meter.own_loss)
        world.raise_if_stopped(stop)

    with progress, precision.autocast():
        metrics = evaluate(timed, batches, topk, after_batch, world)
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
    after_batch: Callable[[int, Meter], object] | None = None,
    world: World = ALONE,
) -> dict[str, float]:
    """Mean cross-entropy (`CELoss`) and top-k accuracies (percent) over all images of all processes.

    The model's training mode is restored afterwards.

    Args:
        model: the network, on the world's device.
        batches: this process's shards, on the world's device.
        topk: the accuracies to count.
        after_batch: called after each batch with the number of its images in this process and the metrics so
            far; may raise to end the evaluation.
        world: the processes that evaluate together.

    Raises:
        NotFiniteError: a weight is NaN.
    """
    was_training = model.training
    model.eval()
    meter = Meter(topk, world.device, world)
    try:
        with torch.no_grad():
            for images, labels in batches.batches(0):
                if len(labels):
                    logits = model(images)
                    meter.update(F.cross_entropy(logits, labels), logits, labels)
                if after_batch is not None:
                    after_batch(len(labels), meter)
    finally:
        model.train(was_training)
    return meter.read()
