"""The base class of edge rules, and the arguments of a rule: space and step.

A rule decides which of a weight's entries, the potential edges, are in use. A rule of your own is a subclass
of EdgeRule that defines `select()`: see docs/adding.md.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from wirings.blocks import Block, Piece, read_blocks
from wirings.errors import NotFiniteError
from wirings.selection import EdgeSelection, Gradient, apply_selection
from wirings.selection_cache import SelectionCache
from wirings.topk import Selector

if TYPE_CHECKING:
    from wirings.ranking import GlobalRanking


@dataclass(frozen=True)
class EdgeSpace:
    """The potential edges of one wired layer.

    Attributes:
        num_targets: rows of the weight.
        num_sources: columns of the weight.
        num_inputs: nodes that enter the layer from outside.
        num_outputs: nodes that leave it.
        acyclic: the layer runs as a static graph, with edges forward only.
        readable: (targets, sources), true where the forward pass reads the edge; None: it reads all.
        kernel: the weight's other dimensions; (1, 1) for a 1×1 convolution, () for a linear layer.
        layer: the module that has the parameter `weight`; None: the rule makes a parameter of its own.
        name: of the weight in the network's state dict, for messages; may be empty.
    """

    num_targets: int
    num_sources: int
    num_inputs: int
    num_outputs: int
    acyclic: bool = False
    readable: Tensor | None = None
    kernel: tuple[int, ...] = (1, 1)
    layer: nn.Module | None = None
    name: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight, (targets, sources, …)."""
        return self.num_targets, self.num_sources, *self.kernel

    @property
    def numel(self) -> int:
        """Number of potential edges."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Step:
    """The current training step, after the backward pass and before the update.

    Attributes:
        index: of the step, from 0.
        total: number of steps of the training.
        optimizer: makes the update next; its state (momenta) may be changed.
    """

    index: int
    total: int
    optimizer: torch.optim.Optimizer

    def reset_momenta(self, weight: Tensor, entries: Tensor) -> None:
        """Set the optimizer's running averages of some weights to zero, as for weights that start at zero.

        Args:
            weight: the parameter.
            entries: boolean, of its shape.
        """
        for value in self.optimizer.state.get(weight, {}).values():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                value.masked_fill_(entries, 0)


class EdgeRule(nn.Module, ABC):
    """Which edges of one weight are in use.

    Subclasses define `select`. The weights in use, the edges of each block and the sparse products follow
    from it. What a rule must remember between steps belongs into buffers, so that checkpoints hold it.

    Args:
        space: the potential edges.
        num_edges: number of them in the budget of this layer.
    """

    gradient: ClassVar[Gradient] = "all"
    """`all`: straight-through, the gradient reaches every weight. `used`: it reaches the weights in use."""
    optional_buffers: ClassVar[tuple[str, ...]] = ()
    """Names of buffers that `freeze_wiring` sets: checkpoints of other rules may lack them."""
    weight: nn.Parameter

    def __init__(self, space: EdgeSpace, num_edges: int) -> None:
        super().__init__()
        self.space, self.num_edges = space, num_edges
        self._absent_prefix: str | None = None
        if space.layer is None:
            self.weight = nn.Parameter(torch.empty(space.shape))
            nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self._cache = SelectionCache()

    @abstractmethod
    def select(self) -> EdgeSelection:
        """The edges in use, by the current weights and buffers. Must not draw random numbers or change
        anything: it is called in training, in evaluation and for reports.
        """

    def deciding(self) -> tuple[Tensor, ...]:
        """The tensors that `select` reads; in evaluation it is called again only when one has changed."""
        return (self.weight, *self.buffers())

    def selection(self) -> EdgeSelection:
        """`select()`; in evaluation the last result while the weights are the same.

        Raises:
            NotFiniteError: a weight is NaN (not raised on a GPU).
        """
        try:
            return self._cache.get(self.training, self.select, *self.deciding())
        except NotFiniteError as error:
            if not self.space.name:
                raise
            raise NotFiniteError(f"{self.space.name}: {error}") from None

    def forward(self) -> Tensor:
        """The weights in use and zero elsewhere, of the weight's shape."""
        return apply_selection(self.weight, self.selection(), self.gradient)

    def blocks(self, pieces: Sequence[Piece]) -> tuple[Block, ...]:
        """Parts of what `forward` returns, as a static graph reads them: see read_blocks."""
        if type(self).forward is not EdgeRule.forward:
            return read_blocks(self(), pieces)
        return read_blocks(self.weight, pieces, self.selection(), self.gradient)

    def in_use(self) -> Tensor:
        """Boolean, of the weight's shape: the edges in use. Not to be written to."""
        with torch.no_grad():
            return self.selection().mask()

    def after_backward(self, step: Step) -> None:
        """Called in training before the optimizer's step, with the gradients of all processes reduced in
        `weight.grad`. Rules that change their wiring or their weights by the gradients do so here.
        """

    def freeze_wiring(self) -> None:
        """Called after the weights of another network were loaded (`use_graph`); by default nothing happens.

        A rule that keeps its wiring in buffers lists them in `optional_buffers`.
        """

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        """Load the buffers; if there are none, note it for `accept_unwired_checkpoint`."""
        is_absent = not any(name.startswith(prefix) for name in state_dict)
        self._absent_prefix = prefix if is_absent and self._buffers else None
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *lists)

    def __getattr__(self, name: str) -> Any:
        if name == "weight" and "space" in self.__dict__ and self.space.layer is not None:
            return self.space.layer._parameters["weight"]
        return super().__getattr__(name)

    def extra_repr(self) -> str:
        return f"{self.num_edges:,} of {self.space.numel:,} edges"


def accept_unwired_checkpoint(model: nn.Module, keys: Any) -> None:
    """Hook of torch after `load_state_dict` of a wired network: a checkpoint of the unwired network fits.

    It has no buffers of any layer's rule, so all rules keep their own. If it has those of some layers, the
    others stay in `keys.missing_keys`.
    """
    rules = [
        module
        for module in model.modules()
        if isinstance(module, EdgeRule) and module.space.layer is not None and module._buffers
    ]
    prefixes = tuple(rule._absent_prefix for rule in rules if rule._absent_prefix is not None)
    if len(prefixes) == len(rules):
        keys.missing_keys[:] = [key for key in keys.missing_keys if not key.startswith(prefixes)]


class RankedEdges(EdgeRule):
    """A rule that uses the edges with the largest scores by magnitude, in its layer or, with the `global`
    budget, among all layers.
    """

    ranks_all_layers: ClassVar[bool] = True
    """Whether the `global` budget can rank the scores of all layers together."""
    ranking: GlobalRanking | None

    def __init__(self, space: EdgeSpace, num_edges: int) -> None:
        super().__init__(space, num_edges)
        self.ranking = None
        self._selector = Selector(num_edges)

    def scores(self) -> Tensor:
        """Scores that are ranked by magnitude, of the weight's shape; by default the weights."""
        return self.weight

    def select(self) -> EdgeSelection:
        """The `num_edges` entries of largest score; with a ranking, those in the ranking of all layers."""
        if self.ranking is not None:
            return self.ranking.selection(self)
        return self.strongest(self.scores())

    def strongest(self, scores: Tensor) -> EdgeSelection:
        """The `num_edges` entries of largest magnitude."""
        self._selector.count = self.num_edges
        return self._selector.select(scores)

    def deciding(self) -> tuple[Tensor, ...]:
        rules = [self] if self.ranking is None else self.ranking.rules
        return tuple(tensor for rule in rules for tensor in (rule.weight, *rule.buffers()))


class MaskedEdges(EdgeRule):
    """A rule with a 0/1 mask that is saved with the weights; all ones at first."""

    gradient: ClassVar[Gradient] = "used"
    optional_buffers: ClassVar[tuple[str, ...]] = ("mask",)
    mask: Tensor

    def __init__(self, space: EdgeSpace, num_edges: int) -> None:
        super().__init__(space, num_edges)
        self.register_buffer("mask", torch.ones_like(self.weight))
        self._mask_cache = SelectionCache()

    def select(self) -> EdgeSelection:
        """The edges that the mask allows."""
        return self.allowed()

    def allowed(self) -> EdgeSelection:
        """The non-zero entries of the mask; on the CPU listed again only when the mask has changed.

        In training its version counter alone shows a change: the bits are not read in every step.
        """
        if self.mask.device.type != "cpu" or torch.compiler.is_compiling():
            # Comparing it with the last mask would wait for a GPU.
            return EdgeSelection.from_mask(self.mask != 0)
        return self._mask_cache.cached(
            lambda: EdgeSelection.from_mask(self.mask != 0), self.mask, by_counter=self.training
        )

    def deciding(self) -> tuple[Tensor, ...]:
        return (self.mask,)
