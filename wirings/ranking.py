"""The `global` budget: one ranking of the weights of all layers in each selection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from wirings.densities import DensitySchedule
from wirings.selection import EdgeSelection
from wirings.topk import Selector


class Ranked(Protocol):
    """A rule whose scores are ranked with those of other layers: see wirings.rules.base.RankedEdges."""

    num_edges: int
    schedule: DensitySchedule | None
    compiled_count: Tensor

    @property
    def weight(self) -> Tensor: ...

    def scores(self) -> Tensor: ...

    def within_scope(self, values: Tensor) -> Tensor: ...

    def buffers(self) -> Iterator[Tensor]: ...


class GlobalRanking:
    """Selects the strongest edges of several layers together.

    Of equal magnitudes at the threshold, those of the first layer are selected, and within it those of lowest
    index. The ranking is made once for all layers of a forward pass, and again when a weight has changed or a
    layer needs it for the second time.

    Args:
        rules: of all layers, in the order of the network. The sum of their numbers of edges is selected.
    """

    def __init__(self, rules: Sequence[Ranked]) -> None:
        self.rules = list(rules)
        self._selector = Selector(self.num_edges)
        self._versions: list[Any] = []
        self._selections: list[EdgeSelection] = []
        self._served: set[int] = set()

    @property
    def num_edges(self) -> int:
        """Number of edges in use now, of all layers together."""
        return sum(rule.num_edges for rule in self.rules)

    def selection(self, rule: Ranked) -> EdgeSelection:
        """The edges of one of the layers.

        Raises:
            NotFiniteError: a weight of any layer is NaN (not raised on a GPU).
        """
        index = next(number for number, other in enumerate(self.rules) if other is rule)
        if torch.compiler.is_compiling():
            return self._rank()[index]
        versions = [_version(other.weight) for other in self.rules]
        if versions != self._versions or index in self._served:
            self._selections, self._versions = self._rank(), versions
            self._served.clear()
        self._served.add(index)
        return self._selections[index]

    def _rank(self) -> list[EdgeSelection]:
        scores = [rule.within_scope(rule.scores().detach()) for rule in self.rules]
        all_scores = torch.cat([score.flatten() for score in scores])
        if torch.compiler.is_compiling() and any(rule.schedule is not None for rule in self.rules):
            count = torch.stack([rule.compiled_count for rule in self.rules]).sum()
            selection = self._selector.select_compiled(all_scores, count)
        else:
            self._selector.count = self.num_edges
            selection = self._selector.select(all_scores)
        if selection.device.type == "cpu" and not torch.compiler.is_compiling():
            return _split_indices(selection.indices(), scores)
        sizes = [score.numel() for score in scores]
        masks = torch.split(selection.mask(), sizes)
        return [
            EdgeSelection.from_mask(mask.view(score.shape)) for mask, score in zip(masks, scores, strict=True)
        ]

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles rank again."""
        return {**self.__dict__, "_versions": [], "_selections": [], "_served": set()}


def _version(weight: Tensor) -> tuple[int | None, int]:
    return None if weight.is_inference() else weight._version, weight.data_ptr()


def _split_indices(indices: Tensor, scores: Sequence[Tensor]) -> list[EdgeSelection]:
    ends = torch.tensor([score.numel() for score in scores]).cumsum(0)
    borders = [0, *torch.searchsorted(indices, ends).tolist()]
    selections, start = [], 0
    for number, score in enumerate(scores):
        layer_indices = indices[borders[number] : borders[number + 1]] - start
        selections.append(EdgeSelection.from_indices(layer_indices, score.shape))
        start += score.numel()
    return selections
