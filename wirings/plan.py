"""Plans of stages without dead nodes, independent of the engine, and checks of descriptions.

A node is **live** if it depends on the image and the logits depend on it. It is **constant** if only the
latter holds: its map is the same for all images, and differs at the border because of the 3×3 filter.
Constants are computed once per map size and added to the live nodes as a bias. All other nodes are dead and
removed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wirings.errors import WiringError
from wirings.stages import Group, Liveness, Stage
from wirings.structure import AcyclicStructure, Classifier, CyclicStructure


@dataclass(frozen=True)
class TargetPlan:
    """The product of some target nodes, with the live and with the constant sources before them.

    Attributes:
        live: (targets, live sources).
        constant: (targets, constant sources).
        shift: (targets), added to every pixel.
        norm: of maps (targets, images, S, S), if it could not be folded into the three above; else None.
    """

    live: Tensor
    constant: Tensor
    shift: Tensor
    norm: nn.Module | None


@dataclass(frozen=True)
class SourcePlan:
    """The live or the constant nodes of a group: their product, and their filters (nodes, 1, 3, 3)."""

    targets: TargetPlan | None
    filters: Tensor


@dataclass(frozen=True)
class GroupPlan:
    """The live and the constant nodes of a group."""

    live: SourcePlan
    constant: SourcePlan
    stride: int


@dataclass(frozen=True)
class StagePlan:
    """Groups in their order, then the nodes that leave."""

    groups: tuple[GroupPlan, ...]
    live_outputs: TargetPlan
    constant_outputs: TargetPlan


@dataclass(frozen=True)
class Affine:
    """A norm as `scale · x + shift`, both by node; or as a function if it has no such form."""

    scale: Tensor
    shift: Tensor
    function: nn.InstanceNorm2d | None = None

    def select(self, nodes: Tensor) -> Affine:
        """The norm of the nodes with these indices."""
        function = None if self.function is None else _select_nodes(self.function, nodes, self.scale)
        return Affine(self.scale[nodes], self.shift[nodes], function)


def as_affine(norm: nn.Module | None, like: Tensor, count: int) -> Affine:
    """The affine form of a norm: of batch norm in evaluation, or the identity; instance norm has none.

    Args:
        norm: in evaluation mode.
        like: a tensor of the result's type and device.
        count: nodes.

    Raises:
        WiringError: a norm of another kind, or of another number of nodes.
    """
    if norm is None or isinstance(norm, nn.Identity):
        return Affine(like.new_ones(count), like.new_zeros(count))
    if not isinstance(norm, (nn.BatchNorm2d, nn.SyncBatchNorm, nn.InstanceNorm2d)):
        raise WiringError(
            f"cannot make a network with {type(norm).__name__} compact; a batch norm or an instance norm can"
        )
    if norm.num_features != count:
        raise WiringError(f"a norm of {norm.num_features} nodes follows {count} nodes")
    if norm.running_mean is None or norm.running_var is None:
        if not isinstance(norm, nn.InstanceNorm2d):
            raise WiringError("cannot make a network compact whose batch norms keep no running statistics")
        return Affine(like.new_ones(count), like.new_zeros(count), norm)
    deviation = (norm.running_var.double() + norm.eps).sqrt()
    scale = (1.0 if norm.weight is None else norm.weight.double()) / deviation
    shift = (0.0 if norm.bias is None else norm.bias.double()) - norm.running_mean.double() * scale
    return Affine(scale.detach().to(like), shift.detach().to(like))


def plan_stage(stage: Stage, live: Liveness, leaving: nn.Module | None) -> StagePlan:
    """The plan of a stage.

    Args:
        stage: the stage; its rule is in evaluation mode.
        live: liveness of the stage.
        leaving: the norm that follows the outputs.
    """
    weight = stage.rule().detach().flatten(1)
    device = weight.device
    masks = ((live.reached & live.needed).to(device), (~live.reached & live.needed).to(device))
    sources: list[list[Tensor]] = [[], []]
    groups = []
    for group in stage.groups:
        indices = [mask[group.columns].nonzero().flatten() for mask in masks]
        live_sources, constant_sources = (
            SourcePlan(_targets(weight, group, nodes, sources), group.filters.detach()[nodes])
            for nodes in indices
        )
        groups.append(GroupPlan(live_sources, constant_sources, group.stride))
        for columns, nodes in zip(sources, indices, strict=True):
            columns.append(nodes + group.columns.start)
    affine = as_affine(leaving, weight, stage.outputs.stop - stage.outputs.start)
    needed, reached = live.outputs_needed.to(device), live.outputs_reached.to(device)
    outputs = [
        _product(weight, stage.outputs.start, mask.nonzero().flatten(), sources, affine)
        for mask in (needed & reached, needed & ~reached)
    ]
    return StagePlan(tuple(groups), *outputs)


def _targets(weight: Tensor, group: Group, nodes: Tensor, sources: list[list[Tensor]]) -> TargetPlan | None:
    if group.rows is None:
        return None
    affine = as_affine(group.norm, weight, group.rows.stop - group.rows.start)
    return _product(weight, group.rows.start, nodes, sources, affine)


def _product(
    weight: Tensor, first_row: int, nodes: Tensor, sources: list[list[Tensor]], affine: Affine
) -> TargetPlan:
    norm = affine.select(nodes)
    rows = weight[first_row + nodes] * norm.scale.unsqueeze(1)
    empty = nodes.new_empty(0)
    live, constant = (torch.cat([empty, *columns]) for columns in sources)
    function = None if norm.function is None else ByNode(norm.function)
    return TargetPlan(rows[:, live], rows[:, constant], norm.shift, function)


def _select_nodes(norm: nn.InstanceNorm2d, nodes: Tensor, like: Tensor) -> nn.InstanceNorm2d:
    smaller = nn.InstanceNorm2d(max(len(nodes), 1), eps=norm.eps, affine=True).to(like)
    if norm.weight is not None:
        smaller.weight = nn.Parameter(norm.weight.detach()[nodes])
        smaller.bias = nn.Parameter(norm.bias.detach()[nodes])
    smaller.num_features = len(nodes)
    return smaller


class ByNode(nn.Module):
    """Instance norm of maps (nodes, images, S, S)."""

    def __init__(self, norm: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, maps: Tensor) -> Tensor:
        return self.norm(maps.transpose(0, 1)).transpose(0, 1) if maps.numel() else maps


def check_stages(structure: AcyclicStructure) -> None:
    """Refuse an inconsistent structure.

    Raises:
        WiringError: sizes do not match, or stages have unsupported norms or strides.
    """
    if not structure.stages:
        raise WiringError("a structure needs at least one stage")
    entering = None
    for stage in structure.stages:
        _check_groups(stage)
        first, leaving = stage.groups[0], stage.outputs.stop - stage.outputs.start
        width = first.columns.stop
        if entering is not None and width != entering:
            raise WiringError(f"{stage.name}: {width} nodes enter, but {entering} leave the stage before")
        entering = leaving
    _check_classifier(structure.classifier, entering or 0)


def _check_groups(stage: Stage) -> None:
    targets, sources = _matrix_shape(stage.name, stage.rule.weight)
    if not stage.groups or stage.groups[0].rows is not None or None in [g.rows for g in stage.groups[1:]]:
        raise WiringError(
            f"{stage.name}: the first group must have no rows, since it enters from outside; others must"
        )
    end = 0
    for number, group in enumerate(stage.groups):
        where, width = f"{stage.name}: group {number}", group.columns.stop - group.columns.start
        if group.columns.start != end:
            raise WiringError(
                f"{where} begins at column {group.columns.start}, the previous one ends at {end}"
            )
        end = group.columns.stop
        if tuple(group.filters.shape) != (width, 1, 3, 3):
            raise WiringError(f"{where} needs filters ({width}, 1, 3, 3), got {tuple(group.filters.shape)}")
        if number and group.stride != 1:
            raise WiringError(f"{where} has a stride of {group.stride}; only the first group may have one")
        if group.rows is not None and group.rows.stop - group.rows.start != width:
            raise WiringError(f"{where} has {width} columns, but other rows: {group.rows}")
        if group.rows is not None and group.rows.stop > targets:
            raise WiringError(f"{where} has the rows {group.rows}, the weight has {targets}")
    if end != sources or stage.outputs.stop > targets:
        raise WiringError(
            f"{stage.name}: groups have {end} columns and outputs end at row {stage.outputs.stop}, "
            f"the weight is {targets} × {sources}"
        )


def check_cycle(structure: CyclicStructure) -> None:
    """Refuse an inconsistent structure.

    Raises:
        WiringError: sizes do not match.
    """
    targets, sources = _matrix_shape("the graph", structure.rule.weight)
    sizes = (structure.num_inputs, structure.num_outputs)
    if targets != sources or max(sizes) > targets or min(sizes) < 1:
        raise WiringError(
            f"a graph of {targets} × {sources} edges cannot have {sizes[0]} inputs and {sizes[1]} outputs"
        )
    if tuple(structure.filters.shape) != (sources, 1, 3, 3):
        raise WiringError(f"filters must be ({sources}, 1, 3, 3), got {tuple(structure.filters.shape)}")
    _check_classifier(structure.classifier, structure.num_outputs)


def _check_classifier(classifier: Classifier, features: int) -> None:
    weight = classifier.weight if isinstance(classifier.weight, Tensor) else classifier.weight.weight
    _, sources = _matrix_shape("the classifier", weight)
    if sources != features:
        raise WiringError(f"the classifier reads {sources} features, but {features} nodes leave the network")


def _matrix_shape(name: str, weight: Tensor) -> tuple[int, int]:
    """(targets, sources) of a weight (targets, sources, 1, …)."""
    if weight.dim() < 2 or weight.numel() != weight.shape[0] * weight.shape[1]:
        raise WiringError(f"{name}: edges are weights of 1×1 convolutions, got {tuple(weight.shape)}")
    return weight.shape[0], weight.shape[1]
