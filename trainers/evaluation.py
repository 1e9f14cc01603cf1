"""Evaluation: every image of a set exactly once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from genutil.distributed import ALONE, World
from trainers.batches import Batches
from trainers.metrics import Meter


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
