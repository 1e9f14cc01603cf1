"""Evaluation: every image of a set exactly once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from genutil.distributed import ALONE, World
from genutil.signals import StopRequest
from trainers.batches import Batches
from trainers.latency import Timed
from trainers.metrics import Meter
from trainers.precision import Precision


def evaluate_and_time(
    network: nn.Module,
    batches: Batches,
    topk: Sequence[int],
    precision: Precision,
    world: World,
    stop: StopRequest,
) -> dict[str, Any]:
    """`evaluate` with a bar on a terminal, stopped by signals; also `images`, and `latency_ms` of an image.

    Args:
        network: on the world's device.
        batches: what to evaluate: this process's share.
        topk: which accuracies to count.
        precision: how the network calculates.
        world: the processes that evaluate together.
        stop: notes signals.

    Raises:
        NotFiniteError: a weight is NaN.
        Interrupted: a signal asked one of several processes to stop.
    """
    timed = Timed(network, world.device)
    bar = tqdm(total=len(batches), desc="evaluating", leave=False, disable=None if world.is_main else True)

    def after_batch() -> None:
        bar.update()
        world.heed(stop)

    with bar, precision.autocast():
        metrics = evaluate(timed, batches, topk, world.device, after_batch, world)
    latency = 1000 * timed.seconds_per_image()
    return {**metrics, "images": sum(world.gather(timed.num_images)), "latency_ms": latency}


def evaluate(
    model: nn.Module,
    batches: Batches,
    topk: Sequence[int],
    device: torch.device,
    after_batch: Callable[[], object] | None = None,
    world: World = ALONE,
) -> dict[str, float]:
    """Mean cross-entropy (`CELoss`) and top-k accuracies (percent) over all images of all processes.

    The model's mode is put back afterwards.

    Args:
        model: the network, on `device`.
        batches: what to evaluate: this process's share.
        topk: which accuracies to count.
        device: where the batches are used.
        after_batch: called after each batch; may raise to end the evaluation.
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
                    after_batch()
    finally:
        model.train(was_training)
    return meter.read()
