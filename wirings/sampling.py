"""Random choice of edges."""

from __future__ import annotations

import torch
from torch import Tensor

from wirings.topk import top_mask_of


def sample_without_replacement(scores: Tensor, candidates: Tensor, count: int) -> Tensor:
    """Boolean mask of `count` candidates, drawn one after the other with probabilities proportional to their
    scores; those of score zero are drawn last.

    It takes the largest of log(score) + Gumbel noise. The random numbers are those of the CPU, so that all
    processes draw the same.

    Args:
        scores: at least 0.
        candidates: boolean, of the same shape; at least `count` are true.
        count: number of entries.
    """
    exponential = -torch.log1p(-torch.rand(scores.shape, dtype=torch.float64)).to(scores.device)
    # log(score) − log(exponential) has the order of score / exponential, which is at least 0.
    keys = scores.double() / exponential.clamp_min(1e-300)
    return top_mask_of(keys, candidates, count)
