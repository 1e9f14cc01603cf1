"""Edge rules: which of a wired layer's potential edges are in use. One class a rule, one way to make them.

A rule owns the weights of all potential edges and, called, gives the weights in use with zeros elsewhere.
A rule of your own is a subclass of EdgeRule in any importable module, named in an experiment as
`graph: my_module:MyRule`; its constructor takes `space` and whichever of the wiring's keys it wants.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from genutil.components import locate
from models.graphs.blocks import Block, read_blocks
from models.graphs.edgelist import Piece
from models.graphs.selection import SelectionCache
from models.graphs.topk import (
    Selection,
    Selector,
    as_mask,
    num_kept,
    straight_through,
    top_mask,
    top_mask_by_row,
)


@dataclass(frozen=True)
class EdgeSpace:
    """The potential edges of one wired layer: all pairs (target, source).

    Attributes:
        num_targets: rows of the weight matrix.
        num_sources: columns of the weight matrix.
        num_inputs: nodes that enter the layer from outside.
        num_outputs: nodes that leave it.
        acyclic: the layer runs as a static graph, with edges forward only.
        readable: (targets, sources), true where the forward pass reads the edge; None: it reads all.
    """

    num_targets: int
    num_sources: int
    num_inputs: int
    num_outputs: int
    acyclic: bool = False
    readable: Tensor | None = None


class EdgeRule(nn.Module, ABC):
    """Weights of all potential edges, (targets, sources, 1, 1), initialised like a 1×1 convolution's."""

    settled_by_weights: ClassVar[tuple[str, ...]] = ()
    """Names of what is saved beside the weights and `fix_wiring` sets: files of other rules may lack it."""

    def __init__(self, space: EdgeSpace) -> None:
        super().__init__()
        self.space = space
        self.weight = nn.Parameter(torch.empty(space.num_targets, space.num_sources, 1, 1))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self._evaluated: SelectionCache[Selection] = SelectionCache()

    def choose(self, select: Callable[[], Selection], *deciding: Tensor) -> Selection:
        """`select()`; in evaluation what it gave last time, if the tensors that decide it are the same."""
        return self._evaluated.choose(self.training, select, *deciding)

    @abstractmethod
    def forward(self) -> Tensor:
        """Weights of the edges in use and zero elsewhere, (targets, sources, 1, 1)."""

    def blocks(self, pieces: Sequence[Piece]) -> tuple[Block, ...]:
        """Parts of what `forward` gives, as a static graph reads them: see read_blocks."""
        return read_blocks(self(), pieces)

    def in_use(self) -> Tensor:
        """Boolean (targets, sources, 1, 1): the edges in use."""
        with torch.no_grad():
            weight: Tensor = self()
            return weight != 0

    def fix_wiring(self) -> None:
        """Called when the weights are those of another network (`use_graph`); most rules do nothing then.

        A rule that notes its wiring here names the buffers for it in `settled_by_weights`.
        """


class AllEdges(EdgeRule):
    """`graph: complete`: every potential edge is in use."""

    def forward(self) -> Tensor:
        return self.weight

    def in_use(self) -> Tensor:
        return torch.ones_like(self.weight, dtype=torch.bool)


class TopEdges(EdgeRule):
    """`graph: dnw`: the strongest edges are in use, but the gradient reaches all: the wiring is learned.

    Args:
        space: the potential edges.
        prune_rate: part of them that is left out.
        edge_scope: `all` ranks every entry of the matrix, as published; `readable` ranks those entries alone
            that the forward pass reads, so that none of the edges in use is wasted.
    """

    readable: Tensor | None

    def __init__(
        self, space: EdgeSpace, prune_rate: float, edge_scope: Literal["all", "readable"] = "all"
    ) -> None:
        super().__init__(space)
        self.num_edges = num_kept(self.weight.numel(), prune_rate)
        readable = space.readable if edge_scope == "readable" else None
        self.register_buffer("readable", None if readable is None else readable.flatten(), persistent=False)
        if readable is not None:
            self.num_edges = min(self.num_edges, int(readable.sum()))
        self._selector = Selector(self.num_edges)

    def in_use(self) -> Tensor:
        return as_mask(self._selection(), self.weight.shape)

    def forward(self) -> Tensor:
        return straight_through(self.weight, self._selection())

    def blocks(self, pieces: Sequence[Piece]) -> tuple[Block, ...]:
        return read_blocks(self.weight, pieces, self._selection())

    def _selection(self) -> Selection:
        return self.choose(self._select, self.weight)

    def _select(self) -> Selection:
        if self.readable is None:
            return self._selector.select(self.weight)
        mask = torch.zeros_like(self.readable)
        mask[self.readable] = self._selector.mask(self.weight.detach().flatten()[self.readable])
        return mask.view(self.weight.shape)


class RandomEdges(EdgeRule):
    """`graph: random`: a fixed random set of edges, drawn once; only their weights are trained.

    In an acyclic space the published pattern is followed: the matrix is walked in steps of `num_outputs`
    columns, and the entries above each step get score zero before the highest random scores are kept.
    """

    mask: Tensor

    def __init__(self, space: EdgeSpace, prune_rate: float) -> None:
        super().__init__(space)
        scores = torch.rand(space.num_targets, space.num_sources)
        if space.acyclic:
            step = space.num_outputs
            for row, column in enumerate(range(space.num_inputs, space.num_sources, step), start=1):
                scores[: row * step, column : column + step] = 0
        mask = top_mask(scores, num_kept(scores.numel(), prune_rate))
        self.register_buffer("mask", mask.to(self.weight.dtype).view(self.weight.shape))

    def forward(self) -> Tensor:
        return self.weight * self.mask

    def in_use(self) -> Tensor:
        return self.mask != 0


class _MaskedEdges(EdgeRule):
    """A rule with a 0/1 mask that is saved with the weights; all ones at first."""

    settled_by_weights = ("mask",)
    mask: Tensor

    def __init__(self, space: EdgeSpace, prune_rate: float) -> None:
        super().__init__(space)
        self.num_edges = num_kept(self.weight.numel(), prune_rate)
        self.register_buffer("mask", torch.ones_like(self.weight))


class TopEdgesWithoutUpdate(_MaskedEdges):
    """`graph: dnw_no_update`: the strongest edges are in use, and only they get a gradient.

    An edge that is not in use can come back only when the used ones become weaker than it. The paper's
    comparison for the update rule of `dnw`.
    """

    def __init__(self, space: EdgeSpace, prune_rate: float) -> None:
        super().__init__(space, prune_rate)
        self._selector = Selector(self.num_edges)

    def in_use(self) -> Tensor:
        return self.choose(lambda: self._selector.mask(self.weight * self.mask), self.weight, self.mask)

    def forward(self) -> Tensor:
        return self.weight * (self.mask * self.in_use())


class FixedTopEdges(_MaskedEdges):
    """`graph: fine_tune`: the strongest edges of a trained network, chosen once and then fixed."""

    def forward(self) -> Tensor:
        return self.weight * self.mask

    def in_use(self) -> Tensor:
        return self.mask != 0

    def fix_wiring(self) -> None:
        """Choose the strongest edges for good, among those that the mask has allowed so far."""
        self.mask.copy_(top_mask(self.weight * self.mask, self.num_edges))


class TargetedDropout(EdgeRule):
    """`graph: td`: weak edges are each dropped with probability `rho` in training, all of them in evaluation.

    Source: Gomez et al., "Learning Sparse Networks Using Targeted Dropout", arXiv 1905.13678.

    Args:
        space: the potential edges.
        prune_rate: part of the edges that counts as weak: int(prune_rate · edges) of smallest magnitude.
        rho: probability of dropping a weak edge in training; `gamma` stands for `prune_rate`.
        td_magnitude: use |w| in place of w, as the published code did, which loses all signs.

    Raises:
        ValueError: `rho` is missing.
    """

    def __init__(
        self,
        space: EdgeSpace,
        prune_rate: float,
        rho: float | Literal["gamma"] | None,
        td_magnitude: bool = False,
    ) -> None:
        super().__init__(space)
        if rho is None:
            raise ValueError("needs rho, the probability of dropping a weak edge, such as rho: 0.95")
        self.prune_rate = prune_rate
        self.rho = prune_rate if rho == "gamma" else float(rho)
        self.td_magnitude = td_magnitude
        self._selector = Selector(num_kept(self.weight.numel(), prune_rate))

    def in_use(self) -> Tensor:
        """The edges that are never dropped: those in use in evaluation."""
        return self.choose(lambda: self._selector.mask(self.weight), self.weight)

    def forward(self) -> Tensor:
        weight = self.weight.abs() if self.td_magnitude else self.weight
        return drop_weak(weight, self.in_use(), self.rho if self.training else 1.0)


class TargetedDropoutByRow(TargetedDropout):
    """`graph: reg_td`: targeted dropout with the weak edges counted for each target node by itself."""

    def in_use(self) -> Tensor:
        count = num_kept(self.weight[0].numel(), self.prune_rate)
        return self.choose(lambda: top_mask_by_row(self.weight, count), self.weight)


def drop_weak(weight: Tensor, strong: Tensor, rho: float) -> Tensor:
    """`weight` with each entry that is not `strong` (boolean, of its shape) zeroed with probability `rho`."""
    return weight * (strong if rho == 1 else strong | (torch.rand_like(weight) >= rho))


EDGE_RULES: dict[str, type[EdgeRule]] = {
    "dnw": TopEdges,
    "random": RandomEdges,
    "complete": AllEdges,
    "dnw_no_update": TopEdgesWithoutUpdate,
    "fine_tune": FixedTopEdges,
    "td": TargetedDropout,
    "reg_td": TargetedDropoutByRow,
}


EdgeMaker = Callable[..., EdgeRule]
"""Makes the edge rule of a space: `edges(space)`, or with a rate of the layer's own `prune_rate=…`."""


def find_rule(graph: str) -> type[EdgeRule]:
    """The rule of this name, or of `module:Class`.

    Raises:
        ValueError: there is no such rule, it is no EdgeRule, or it does not define `forward`.
    """
    if graph not in EDGE_RULES and ":" not in graph:
        raise ValueError(f"graph must be one of {', '.join(EDGE_RULES)} or module:Class, got {graph}")
    rule = EDGE_RULES[graph] if graph in EDGE_RULES else locate(graph, "graph")
    if not (inspect.isclass(rule) and issubclass(rule, EdgeRule)):
        raise ValueError(f"graph: {graph} is no subclass of models.graphs.edges.EdgeRule")
    if inspect.isabstract(rule):
        raise ValueError(f"graph: {graph} must define forward(), which gives the weights in use")
    return rule
