"""The base class of edge rules, and its arguments: the potential edges and the training step.

A rule selects which of a weight's entries, the potential edges, are in use. A rule of your own is a subclass
of EdgeRule that defines `select()`: see docs/adding.md. The terms are explained in docs/architecture.md.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from wirings.blocks import Block, Piece, read_blocks
from wirings.densities import DensitySchedule
from wirings.errors import NotFiniteError
from wirings.selection import EdgeSelection, Gradient, apply_selection
from wirings.selection_cache import SelectionCache
from wirings.topk import Selector

if TYPE_CHECKING:
    from wirings.ranking import GlobalRanking


EdgeScope: TypeAlias = Literal["all", "readable"]
"""Which entries of a weight a rule chooses among: all of them, as published, or those that the forward pass
reads, so that no edge in use is without effect."""


@dataclass(frozen=True)
class PotentialEdges:
    """The potential edges of one weight: all its entries.

    Attributes:
        num_targets: rows of the weight.
        num_sources: columns of the weight.
        num_inputs: nodes that enter the layer from outside.
        num_outputs: nodes that leave it.
        acyclic: `random` draws the published pattern of acyclic graphs.
        readable_mask: boolean (targets, sources), true for the readable edges: those that the forward pass
            reads. None: it reads all. A static graph reads no edges to earlier nodes.
        kernel: the weight's other dimensions; (1, 1) for a 1×1 convolution, () for a linear layer.
        layer: the module that has the parameter `weight`; None: the rule makes a parameter of its own.
        name: of the weight in the network's state dict, for messages; may be empty.
    """

    num_targets: int
    num_sources: int
    num_inputs: int
    num_outputs: int
    acyclic: bool = False
    readable_mask: Tensor | None = None
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

    @functools.cached_property
    def num_readable(self) -> int:
        """Number of potential edges that the forward pass reads."""
        return self.numel if self.readable_mask is None else int(self.readable_mask.sum())


EdgeSpace = PotentialEdges
"""The former name, for networks that were written with it."""


@dataclass(frozen=True)
class Step:
    """The current training step, after the backward pass and before the update.

    Attributes:
        index: of the step, from 0.
        total: number of steps of the training.
        optimizer: makes the update next; its state may be changed (`reset_optimizer_state`).
    """

    index: int
    total: int
    optimizer: torch.optim.Optimizer

    def reset_optimizer_state(self, weight: Tensor, mask: Tensor) -> None:
        """Set the optimizer's state of some entries of a parameter to zero, as at the start of a training.

        Every tensor of the parameter's shape in its state is changed: the momentum of SGD, or both averages
        of Adam. Step counts stay.

        Args:
            weight: the parameter.
            mask: boolean, of its shape: the entries.
        """
        for value in self.optimizer.state.get(weight, {}).values():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                value.masked_fill_(mask, 0)


class EdgeRule(nn.Module, ABC):
    """Selects which edges of one weight are in use; calling it returns the weight with zeros for the others.

    Subclasses define `select`; everything else is derived from it:

    - `select()` selects the edges by the weight and the buffers.
    - `selection()` returns its result, which is cached in evaluation; all others call this method.
    - `in_use()` returns the selection as a boolean mask, which `Wiring.adjacency()` collects of all rules.
    - `forward()` and `blocks()` return the weights in use, as a whole or in blocks.

    State that a rule keeps between steps must be in buffers, so that checkpoints contain it.

    Args:
        potential: the potential edges.
        num_edges: number of edges in use, by the budget.
        schedule: number of edges in use during the training; None: always that of the budget.
        edge_scope: see EdgeScope.

    Attributes:
        budget: number of edges that the network's budget gives this weight: those in use at the end of the
            schedule; at most `num_potential`.
        num_edges: number of edges in use now, which a schedule changes during the training.
        num_potential: number of edges that can be in use.
        readable: boolean, of the weight's shape: the edges that can be in use; None: all.
        compiled_count: number of edges by the schedule as a tensor on the CPU, the input of compiled graphs.
    """

    gradient: Gradient = "all"
    """Which entries of `weight.grad` the backward pass sets. `all`: every entry gets the gradient that it
    would have if its edge were in use (straight-through), so that unused weights are trained, too. `used`:
    entries of unused edges get zero, as if the weight were multiplied by the mask. The forward pass is the
    same.
    """
    default_schedule: ClassVar[DensitySchedule | None] = None
    """The schedule of the rule's publication, if it has one."""
    has_exact_count: ClassVar[bool] = False
    """Whether the rule promises that exactly `num_edges` edges are in use at any time; it is checked then."""
    has_fixed_wiring: ClassVar[bool] = False
    """Whether the same edges stay in use when the weights change, as `use_init` requires."""
    needs_trained_weights: ClassVar[bool] = False
    """Whether the wiring comes from a trained network, so that a training needs `use_graph`."""
    optional_buffers: ClassVar[tuple[str, ...]] = ()
    """Names of buffers that the checkpoint of `use_graph` may lack."""
    weight: nn.Parameter
    num_edges_now: Tensor
    readable: Tensor | None

    def __init__(
        self,
        potential: PotentialEdges,
        num_edges: int,
        schedule: DensitySchedule | None = None,
        edge_scope: EdgeScope = "all",
    ) -> None:
        super().__init__()
        readable = potential.readable_mask if edge_scope == "readable" else None
        self.num_potential = potential.numel if readable is None else int(readable.sum())
        readable = None if readable is None else readable.view(potential.shape)
        self.register_buffer("readable", readable, persistent=False)
        num_edges = min(num_edges, self.num_potential)
        self.potential, self.budget, self.num_edges = potential, num_edges, num_edges
        self.schedule = schedule
        if schedule is not None:
            self.num_edges = schedule.num_edges(0.0, num_edges, self.num_potential)
            self.register_buffer("num_edges_now", torch.tensor(self.num_edges))
        self.compiled_count = torch.tensor(self.num_edges)
        self._absent_prefix: str | None = None
        if potential.layer is None:
            self.weight = nn.Parameter(torch.empty(potential.shape))
            nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self._evaluation_cache = SelectionCache()

    def scope(self) -> Tensor:
        """Boolean mask of the edges that can be in use."""
        if self.readable is not None:
            return self.readable
        return torch.ones(self.weight.shape, dtype=torch.bool, device=self.weight.device)

    def within_scope(self, values: Tensor) -> Tensor:
        """Values of the edges that can be in use, and zeros (or false) for others.

        Args:
            values: of the weight's shape.
        """
        return values if self.readable is None else values.masked_fill(~self.readable, 0)

    def count_training_edges(self, in_use: int) -> int:
        """Number of edges that the products of a training step need; by default those in use.

        Args:
            in_use: number of edges in use that the forward pass reads.
        """
        return in_use

    def count_gradient_edges(self, in_use: int) -> int:
        """Number of edges whose gradient a training step needs; `in_use` as in `count_training_edges`."""
        return self.potential.num_readable if self.gradient == "all" else self.count_training_edges(in_use)

    @abstractmethod
    def select(self) -> EdgeSelection:
        """Select the edges in use by the current weight and buffers.

        It must not draw random numbers or change state, since it is called in training, in evaluation and for
        reports.
        """

    def selection_inputs(self) -> tuple[Tensor, ...]:
        """The tensors that `select` reads; in evaluation it is called again only if one of them changes."""
        return (self.weight, *self.buffers())

    def selection(self) -> EdgeSelection:
        """The edges in use: the result of `select()`, in evaluation cached until `selection_inputs()` change.

        Raises:
            NotFiniteError: a weight is NaN (not raised on a GPU).
        """
        try:
            return self._evaluation_cache.get(self.training, self.select, *self.selection_inputs())
        except NotFiniteError as error:
            if not self.potential.name:
                raise
            raise NotFiniteError(f"{self.potential.name}: {error}") from None

    def forward(self) -> Tensor:
        """The weights in use, and zeros elsewhere, in the weight's shape."""
        return apply_selection(self.weight, self.selection(), self.gradient)

    def blocks(self, pieces: Sequence[Piece]) -> tuple[Block, ...]:
        """Blocks of the tensor that `forward` returns, one for each piece: see read_blocks."""
        if type(self).forward is not EdgeRule.forward:
            return read_blocks(self(), pieces)
        return read_blocks(self.weight, pieces, self.selection(), self.gradient)

    def in_use(self) -> Tensor:
        """The mask of the edges in use: boolean, in the weight's shape. It must not be modified."""
        with torch.no_grad():
            return self.selection().mask()

    def after_backward(self, step: Step) -> None:
        """Change the wiring or the weight by the gradient; by default nothing happens.

        It is called in training before the optimizer's step, with the gradients of all processes reduced in
        `weight.grad`.

        Args:
            step: the current training step.
        """

    def follow_schedule(self, step: Step) -> None:
        """Set the number of edges in use for the step after this one. It is called after `after_backward`."""
        if self.schedule is not None:
            self.set_progress((step.index + 1) / step.total)

    def set_progress(self, progress: float) -> None:
        """Set the number of edges in use to that of the schedule.

        Args:
            progress: fraction of the training's steps that are done, 0..1.
        """
        assert self.schedule is not None
        self.num_edges = self.schedule.num_edges(progress, self.budget, self.num_potential)
        self.num_edges_now.fill_(self.num_edges)
        self.compiled_count.fill_(self.num_edges)

    def prepare_layer(self) -> None:
        """Change the weight of a layer when `wire` wires it; by default nothing happens. A constructor must
        not change it: if an error follows, the network must be unchanged.
        """

    def release_layer(self) -> None:
        """Undo what `prepare_layer` changed, other than values, when `unwire` unwires the layer."""

    def freeze_wiring(self) -> None:
        """Fix the wiring by the current weight, as state in buffers; by default nothing happens.

        It is called after the weights of another network were loaded (`use_graph`). Such a rule lists its
        buffers in `optional_buffers`, since the checkpoint of another rule does not contain them.
        """

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        """Load the buffers; if there are none, note it for `accept_unwired_checkpoint`."""
        is_absent = not any(name.startswith(prefix) for name in state_dict)
        self._absent_prefix = prefix if is_absent and self.keeps_state else None
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *lists)
        if self.schedule is not None:
            self.num_edges = int(self.num_edges_now)
            self.compiled_count.fill_(self.num_edges)

    def __getattr__(self, name: str) -> Any:
        # The layer's parameter is not registered here too: it would be twice in the state dict.
        if name == "weight" and "potential" in self.__dict__ and self.potential.layer is not None:
            return self.potential.layer._parameters["weight"]
        return super().__getattr__(name)

    @property
    def keeps_state(self) -> bool:
        """Whether the rule has entries of its own in the state dict, besides the weight."""
        own = {*self._buffers, *self._parameters} - {"weight"} - self._non_persistent_buffers_set
        return bool(own)

    def extra_repr(self) -> str:
        return f"{self.num_edges:,} of {self.potential.numel:,} edges"


def accept_unwired_checkpoint(model: nn.Module, keys: Any) -> None:
    """Hook of torch after `load_state_dict` of a wired network: a checkpoint of the unwired network fits.

    It has no buffers of any layer's rule, so all rules keep their own. If it has those of some layers, the
    others stay in `keys.missing_keys`.
    """
    rules = [
        module
        for module in model.modules()
        if isinstance(module, EdgeRule) and module.potential.layer is not None and module.keeps_state
    ]
    prefixes = tuple(rule._absent_prefix for rule in rules if rule._absent_prefix is not None)
    if len(prefixes) == len(rules):
        keys.missing_keys[:] = [key for key in keys.missing_keys if not key.startswith(prefixes)]


class RankedEdges(EdgeRule):
    """A rule that uses the edges with the largest scores by magnitude, in its layer or, with the `global`
    budget, among all layers.
    """

    has_exact_count = True
    ranks_all_layers: ClassVar[bool] = True
    """Whether the `global` budget can rank the scores of all layers together."""
    ranking: GlobalRanking | None

    def __init__(
        self,
        potential: PotentialEdges,
        num_edges: int,
        schedule: DensitySchedule | None = None,
        edge_scope: EdgeScope = "all",
    ) -> None:
        super().__init__(potential, num_edges, schedule, edge_scope)
        self.ranking = None
        self._selector = Selector(self.num_edges)

    def scores(self) -> Tensor:
        """Scores that are ranked by magnitude, of the weight's shape; by default the weights."""
        return self.weight

    def select(self) -> EdgeSelection:
        """Select the `num_edges` entries with the largest scores; with a ranking, those in the ranking of all
        layers.
        """
        if self.ranking is not None:
            return self.ranking.selection(self)
        if self.readable is None:
            return self.strongest(self.scores())
        scores = self.scores().detach()
        if scores.device.type == "cpu" and not torch.compiler.is_compiling():
            selection = self.strongest(self.within_scope(scores))
            # Readable edges of score zero are not distinguished from others, which may be selected then.
            if bool(self.readable.flatten()[selection.indices()].all()):
                return selection
        mask = torch.zeros_like(self.readable)
        mask[self.readable] = self.strongest(scores[self.readable]).mask()
        return EdgeSelection.from_mask(mask, self.num_edges)

    def strongest(self, scores: Tensor) -> EdgeSelection:
        """The `num_edges` entries of largest magnitude, as a selection of the shape of `scores`."""
        if self.schedule is not None and torch.compiler.is_compiling():
            return self._selector.select_compiled(scores, self.compiled_count)
        if self.schedule is not None and self.num_edges == scores.numel():
            return EdgeSelection.full(scores.shape, scores.device)
        self._selector.count = self.num_edges
        return self._selector.select(scores)

    def selection_inputs(self) -> tuple[Tensor, ...]:
        rules = [self] if self.ranking is None else self.ranking.rules
        return tuple(tensor for rule in rules for tensor in (rule.weight, *rule.buffers()))


class MaskedEdges(EdgeRule):
    """A rule with a buffer `mask` that is saved with the weights: zeros and ones of the weight's type, all
    ones until a subclass sets them.
    """

    gradient: Gradient = "used"
    optional_buffers: ClassVar[tuple[str, ...]] = ("mask",)
    mask: Tensor

    def __init__(
        self,
        potential: PotentialEdges,
        num_edges: int,
        schedule: DensitySchedule | None = None,
        edge_scope: EdgeScope = "all",
    ) -> None:
        super().__init__(potential, num_edges, schedule, edge_scope)
        self.register_buffer("mask", torch.ones_like(self.weight))
        self._training_cache = SelectionCache()

    def select(self) -> EdgeSelection:
        """Select the edges where the mask is not zero; on the CPU the result is cached until it changes.

        In training only its version counter is compared: its bits are not read in every step.
        """
        if self.mask.device.type != "cpu" or torch.compiler.is_compiling():
            # Comparing it with the last mask would wait for a GPU.
            return EdgeSelection.from_mask(self.mask != 0)
        return self._training_cache.cached(
            lambda: EdgeSelection.from_mask(self.mask != 0), self.mask, by_counter=self.training
        )

    def selection_inputs(self) -> tuple[Tensor, ...]:
        return (self.mask,)
