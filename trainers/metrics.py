"""Loss and accuracies, added up on the device and read only when somebody asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genutil.distributed.world import ALONE, World


class Meter:
    """Mean loss and top-k accuracies over all images seen, exact also over batches of different size.

    Args:
        topk: which accuracies to count.
        device: where logits and labels live.
        world: the processes whose images are counted together.
    """

    def __init__(self, topk: Sequence[int], device: torch.device | str, world: World = ALONE) -> None:
        self.topk, self.world = tuple(topk), world
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
        """`CELoss` and `top<k>_accuracy` (percent) of all processes. Waits for the device and for them."""
        return self._values(self._total())

    def own_loss(self) -> float:
        """Mean loss over the images of this process. Waits for the device, not for other processes."""
        return self._loss.item() / max(self.num_images, 1)

    def images(self) -> int:
        """Seen by all processes."""
        return int(self._total()[-1])

    def state(self) -> dict[str, Any]:
        """The sums of all processes so far, for a checkpoint within an epoch."""
        loss, *correct, num_images = self._total().unbind()
        return {
            "loss": loss.clone(),
            "correct": torch.stack(correct).long(),
            "num_images": int(num_images),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from the sums that `state` gave. One process takes them over, so that they count once."""
        share = int(self.world.is_main)
        self._loss.copy_(state["loss"] * share)
        self._correct.copy_(state["correct"] * share)
        self.num_images = state["num_images"] * share

    def _own(self) -> Tensor:
        """Loss, correct ones by k, images, as float64, which holds whole numbers exactly up to 2^53."""
        counts = [*self._correct.tolist(), self.num_images]
        return torch.tensor([self._loss.item(), *counts], dtype=torch.float64)

    def _total(self) -> Tensor:
        return self.world.sum(self._own())

    def _values(self, sums: Tensor) -> dict[str, float]:
        loss, *correct, num_images = sums.tolist()
        count = max(num_images, 1)
        accuracies = {
            f"top{k}_accuracy": 100 * hits / count for k, hits in zip(self.topk, correct, strict=True)
        }
        return {"CELoss": loss / count, **accuracies}
