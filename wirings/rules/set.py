"""`set`: sparse evolutionary training.

Source: Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse connectivity
inspired by network science", Nature Communications 2018.
"""

from __future__ import annotations

from torch import Tensor

from wirings.drop_and_grow import DropAndGrow
from wirings.topk import top_mask_of


class RandomlyGrownEdges(DropAndGrow):
    """`graph: set`: the weakest edges are replaced by random ones."""

    reads_all_gradients = False

    def grow(self, kept: Tensor, candidates: Tensor, count: int) -> Tensor:
        return top_mask_of(self.random_scores(), candidates, count)
