"""What training minimises: cross-entropy, with smoothed labels and mixed images where that is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Mixed:
    """Images, each of which may be mixed from two.

    Attributes:
        images: (images, channels, height, width).
        labels: (images); of those with the larger share.
        partners: labels of the others; None: no image is mixed.
        share: of the images that `labels` names, 0.5..1.
    """

    images: Tensor
    labels: Tensor
    partners: Tensor | None = None
    share: float = 1.0


class Objective:
    """Cross-entropy of the logits and the labels.

    Args:
        label_smoothing: part of each label that is spread evenly over all classes, 0..1.
        mixup: α of the Beta(α, α) distribution that the shares of two mixed images are drawn from; 0: no
            mixing. Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", arXiv 1710.09412.
        seed: of the shares and partners.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, label_smoothing: float = 0.0, mixup: float = 0.0, seed: int = 0) -> None:
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be within 0..1, got {label_smoothing}")
        if mixup < 0:
            raise ValueError(f"mixup must not be negative, got {mixup}")
        self.label_smoothing, self.mixup, self.seed = label_smoothing, mixup, seed

    def mix(self, images: Tensor, labels: Tensor, step: int, rank: int = 0, part: int = 0) -> Mixed:
        """Each image with another one, all with the same share. The same numbers give the same mixture.

        Args:
            images, labels: what a network sees at once.
            step: optimizer steps done before.
            rank: of the process.
            part: of its share of the batch.
        """
        if not self.mixup or not len(labels):
            return Mixed(images, labels)
        random = np.random.default_rng([self.seed, step, rank, part])
        drawn = random.beta(self.mixup, self.mixup)
        share = float(max(drawn, 1 - drawn))
        order = torch.from_numpy(random.permutation(len(labels))).to(labels.device)
        return Mixed(images.lerp(images[order], 1 - share), labels, labels[order], share)

    def loss(self, logits: Tensor, mixed: Mixed) -> Tensor:
        """Mean over the images. Cross-entropy is linear in the labels, so mixed ones mix their losses."""
        loss = self._cross_entropy(logits, mixed.labels)
        if mixed.partners is None:
            return loss
        return mixed.share * loss + (1 - mixed.share) * self._cross_entropy(logits, mixed.partners)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
