"""Latency of a network per image."""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor, nn


class TimedModel(nn.Module):
    """A network whose forward passes are timed. The first batch is run twice; its first pass is a warm-up.

    Args:
        network: on `device`.
        device: synchronized before and after every forward pass.

    Attributes:
        num_images: images of all timed passes.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network, self.device = network, device
        self.num_images = 0
        self._seconds: list[tuple[int, float]] = []
        self.train(network.training)

    def forward(self, images: Tensor) -> Tensor:
        if not self.num_images:
            self.network(images)
        self._synchronize()
        start = time.perf_counter()
        logits: Tensor = self.network(images)
        self._synchronize()
        self._seconds.append((len(images), time.perf_counter() - start))
        self.num_images += len(images)
        return logits

    def seconds_per_batch(self) -> list[float]:
        """Times of all batches of full size, in their order."""
        full = max((size for size, _ in self._seconds), default=0)
        return [seconds for size, seconds in self._seconds if size == full]

    def seconds_per_image(self) -> float:
        """Median over the batches of full size; NaN before the first one."""
        times, full = self.seconds_per_batch(), max((size for size, _ in self._seconds), default=0)
        return statistics.median(times) / full if times else float("nan")

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
