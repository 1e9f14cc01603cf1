"""`rigl`: the weakest edges are replaced by those of largest gradient.

Source: Evci et al., "Rigging the Lottery: Making All Tickets Winners", ICML 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wirings.drop_and_grow import DropAndGrow
from wirings.topk import top_mask_of


class GradientGrownEdges(DropAndGrow):
    """`graph: rigl`: the weakest edges are replaced by those of largest gradient."""

    def grow(self, kept: Tensor, candidates: Tensor, count: int) -> Tensor:
        return top_mask_of(self.gradient_magnitude(), candidates, count)

    def gradient_magnitude(self) -> Tensor:
        """Of all edges; zero if the weight had no part in the loss, and where a gradient is not finite, as in
        a step that fp16 skips.
        """
        gradient = self.weight.grad
        if gradient is None:
            return torch.zeros_like(self.weight)
        return gradient.abs().nan_to_num(nan=0.0, posinf=0.0)
