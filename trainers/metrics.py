"""Loss and accuracies, added up on the device and read only when somebody asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Meter:
    """Mean loss and top-k accuracies over all images seen, exact also over batches of different size.

    Args:
        topk: which accuracies to count.
        device: where logits and labels live.
    """

    def __init__(self, topk: Sequence[int], device: torch.device | str) -> None:
        self.topk = tuple(topk)
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._correct = torch.zeros(len(self.topk), dtype=torch.int64, device=device)
        self.num_images = 0

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: mean loss, logits (images, classes), labels (images). Never waits for the device."""
        ranked = logits.detach().topk(min(max(self.topk), logits.shape[1]), dim=1).indices
        hits = ranked == labels.unsqueeze(1)
        self._correct += torch.stack([hits[:, :k].sum() for k in self.topk])
        self._loss += loss.detach().double() * len(labels)
        self.num_images += len(labels)

    def read(self) -> dict[str, float]:
        """`CELoss` and `top<k>_accuracy` (percent). Waits for the device."""
        count = max(self.num_images, 1)
        values = {"CELoss": self._loss.item() / count}
        for k, correct in zip(self.topk, self._correct.tolist(), strict=True):
            values[f"top{k}_accuracy"] = 100.0 * correct / count
        return values

    def state(self) -> dict[str, Any]:
        """The sums so far, for a checkpoint within an epoch."""
        return {"loss": self._loss.cpu(), "correct": self._correct.cpu(), "num_images": self.num_images}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from the sums that `state` gave."""
        self._loss.copy_(state["loss"])
        self._correct.copy_(state["correct"])
        self.num_images = state["num_images"]
