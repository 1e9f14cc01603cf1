"""Criterion of the training: cross-entropy, with label smoothing and mixup as options."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class MixupBatch:
    """Images, each of which may be mixed from two.

    Attributes:
        images: (n, channels, height, width).
        labels: (n), of the images with the weight `lam`.
        labels_b: (n), of those with the weight 1 − `lam`; None: no image is mixed.
        lam: 0.5..1.
    """

    images: Tensor
    labels: Tensor
    labels_b: Tensor | None = None
    lam: float = 1.0


class Criterion:
    """Mean cross-entropy of logits and labels.

    Args:
        label_smoothing: fraction of each label that is spread evenly over all classes, 0..1.
        mixup: α of the Beta(α, α) distribution of the weights of two mixed images; 0: no image is mixed.
            Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", arXiv 1710.09412.
        seed: of mixup's weights and pairs.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, label_smoothing: float = 0.0, mixup: float = 0.0, seed: int = 0) -> None:
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be within 0..1, got {label_smoothing}")
        if mixup < 0:
            raise ValueError(f"mixup must not be negative, got {mixup}")
        self.label_smoothing, self.mixup, self.seed = label_smoothing, mixup, seed

    def prepare(
        self, images: Tensor, labels: Tensor, step: int, rank: int = 0, microbatch: int = 0
    ) -> MixupBatch:
        """Mix each image with another one, all with the same weight, if `mixup` is set.

        The random numbers depend on the seed and the last three arguments alone, so that a resumed training
        repeats them.

        Args:
            images, labels: of one forward pass.
            step: optimizer steps done.
            rank: of the process.
            microbatch: number of the microbatch in the step.
        """
        if not self.mixup or not len(labels):
            return MixupBatch(images, labels)
        generator = np.random.default_rng([self.seed, step, rank, microbatch])
        weight = generator.beta(self.mixup, self.mixup)
        lam = float(max(weight, 1 - weight))
        order = torch.from_numpy(generator.permutation(len(labels))).to(labels.device)
        return MixupBatch(images.lerp(images[order], 1 - lam), labels, labels[order], lam)

    def __call__(self, logits: Tensor, batch: MixupBatch) -> Tensor:
        """Mean loss over the images; 0 for a blank image, whose gradients are 0 as well."""
        if not len(batch.labels):
            return logits.sum() * 0
        loss = self._cross_entropy(logits, batch.labels)
        if batch.labels_b is None:
            return loss
        # Cross-entropy is linear in the target distribution, so the losses are mixed as the labels are.
        return batch.lam * loss + (1 - batch.lam) * self._cross_entropy(logits, batch.labels_b)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
