"""Convolutions that select their weights: each entry of a filter is an edge of its own."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from models.graphs.edges import drop_weak
from wirings.selection import EdgeSelection, straight_through
from wirings.selection_cache import SelectionCache
from wirings.topk import Selector, num_kept


class SparseConv2d(nn.Conv2d):
    """A convolution by its strongest weights; the gradient reaches all of them (straight-through).

    Source: Wortsman, Farhadi, Rastegari, "Discovering Neural Wirings", NeurIPS 2019.

    Args:
        like: a convolution without a bias, whose sizes are taken.
        prune_rate: part of the weights that is left out; numel − int(prune_rate · numel) stay.
    """

    def __init__(self, like: nn.Conv2d, prune_rate: float) -> None:
        super().__init__(
            like.in_channels, like.out_channels, _pair(like.kernel_size), _pair(like.stride),
            like.padding if isinstance(like.padding, str) else _pair(like.padding),
            _pair(like.dilation), like.groups, bias=False,
        )  # fmt: skip
        self.prune_rate = prune_rate
        self._selector = Selector(num_kept(self.weight.numel(), prune_rate))
        self._cache = SelectionCache()

    def forward(self, maps: Tensor) -> Tensor:
        return cast(Tensor, self._conv_forward(maps, self.weight_in_use(), None))

    def weight_in_use(self) -> Tensor:
        """The weights that the forward pass multiplies with, zero where they are not chosen."""
        return straight_through(self.weight, self._selection())

    def in_use(self) -> Tensor:
        """Boolean, of the weight's shape: the strongest weights."""
        return self._selection().mask()

    def _selection(self) -> EdgeSelection:
        return self._cache.get(self.training, lambda: self._selector.select(self.weight), self.weight)

    def settled(self) -> nn.Conv2d:
        """A plain convolution with the weights of evaluation, chosen once."""
        plain = nn.Conv2d(
            self.in_channels, self.out_channels, _pair(self.kernel_size), _pair(self.stride),
            self.padding if isinstance(self.padding, str) else _pair(self.padding),
            _pair(self.dilation), self.groups, bias=False, device=self.weight.device, dtype=self.weight.dtype,
        )  # fmt: skip
        was_training = self.training
        self.eval()
        with torch.no_grad():
            plain.weight.copy_(self.weight_in_use())
        self.train(was_training)
        return plain.train(was_training)

    def extra_repr(self) -> str:
        sizes: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{sizes}, prune_rate={self.prune_rate}"


class DropoutConv2d(SparseConv2d):
    """A convolution under targeted dropout: in training, each weak weight is dropped with probability
    `prune_rate`; in evaluation all of them are.

    Source: Gomez et al., "Learning Sparse Networks Using Targeted Dropout", arXiv 1905.13678.
    """

    def weight_in_use(self) -> Tensor:
        return drop_weak(self.weight, self.in_use(), self.prune_rate if self.training else 1.0)


def _pair(size: tuple[int, ...]) -> tuple[int, int]:
    height, width = size
    return height, width
