"""Metrics: loss and accuracies, summed on the device and read only on request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genutil.distributed.world import ALONE, World


class Meter:
    """Mean loss and top-k accuracies over all images, exact also over batches of different sizes.

    Args:
        topk: the accuracies to count.
        device: of logits and labels.
        world: the processes whose images are counted together.

    Attributes:
        num_images: images of this process so far.
    """

    def __init__(self, topk: Sequence[int], device: torch.device | str, world: World = ALONE) -> None:
        self.topk, self.world = tuple(topk), world
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._correct = torch.zeros(len(self.topk), dtype=torch.int64, device=device)
        self.num_images = 0

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: mean loss, logits (n, classes), labels (n). Never waits for the device."""
        if not len(labels):
            return
        ranked = logits.detach().topk(min(max(self.topk), logits.shape[1]), dim=1).indices
        hits = ranked == labels.unsqueeze(1)
        self._correct += torch.stack([hits[:, :k].sum() for k in self.topk])
        self._loss += loss.detach().double() * len(labels)
        self.num_images += len(labels)

    def read(self) -> dict[str, float]:
        """`CELoss` and `top<k>_accuracy` (percent) of all processes. Waits for the device and for them."""
        loss, *correct, num_images = self._sums_of_all().tolist()
        count = max(num_images, 1)
        accuracies = {
            f"top{k}_accuracy": 100 * hits / count for k, hits in zip(self.topk, correct, strict=True)
        }
        return {"CELoss": loss / count, **accuracies}

    def own_loss(self) -> float:
        """Mean loss over the images of this process. Waits for the device, not for other processes."""
        return self._loss.item() / max(self.num_images, 1)

    def images(self) -> int:
        """Images of all processes so far."""
        return int(self._sums_of_all()[-1])

    def state_dict(self) -> dict[str, Any]:
        """The sums of all processes, for a checkpoint within an epoch."""
        loss, *correct, num_images = self._sums_of_all().unbind()
        return {
            "loss": loss.clone(),
            "correct": torch.stack(correct).long(),
            "num_images": int(num_images),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the sums. Process 0 takes all of them, so that they count once.

        Raises:
            ValueError: they are those of other accuracies.
        """
        if torch.as_tensor(state["correct"]).shape != self._correct.shape:
            raise ValueError("the metrics of the epoch are those of another topk")
        factor = int(self.world.is_main)
        self._loss.copy_(state["loss"] * factor)
        self._correct.copy_(state["correct"] * factor)
        self.num_images = state["num_images"] * factor

    def _sums_of_all(self) -> Tensor:
        """Loss, hits by k, images, over all processes; float64 holds whole numbers up to 2^53 exactly."""
        counts = [*self._correct.tolist(), self.num_images]
        return self.world.sum(torch.tensor([self._loss.item(), *counts], dtype=torch.float64))
