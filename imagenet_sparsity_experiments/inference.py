"""How long a network takes for a batch of random images."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import nn

from imagenet_sparsity_experiments.options import Options
from trainers.latency import TimedModel
from trainers.precision import Precision

_ROUNDS = 20
"""Batches, without --prof."""


def measure_inference(network: nn.Module, options: Options, device: torch.device) -> dict[str, Any]:
    """Median, fastest and slowest time of a batch, and images a second; the first batches warm up.

    Args:
        network: on `device`.
        options: batch size, image size and precision.
        device: is waited for around every batch.
    """
    timed = TimedModel(network, device).eval()
    generator = torch.Generator().manual_seed(options.seed)
    shape = (options.batch_size, 3, options.image_size, options.image_size)
    images = torch.randn(shape, generator=generator).to(device)
    rounds = options.prof if options.prof != -1 else _ROUNDS
    with torch.no_grad(), Precision(options.precision, device).autocast():
        for _ in range(rounds):
            timed(images)
    times = timed.seconds_per_batch()
    median = statistics.median(times)
    return {
        "images": timed.num_images,
        "images_per_second": options.batch_size / median,
        "latency_ms": 1000 * timed.seconds_per_image(),
        "batch_ms": {"median": 1000 * median, "min": 1000 * min(times), "max": 1000 * max(times)},
        "engine": "plain",
    }
