"""Plans of stages without dead nodes, independent of the engine, and checks of descriptions.

A node is **live** if it depends on the image and the logits depend on it. It is a **constant** if only the
latter holds: norm and ReLU of what reaches it, a map that differs at the border through the 3×3 filter.
Constants are computed once for a map size and added to the live nodes as a bias. All other nodes are dead and
left out.
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
    """A product onto some nodes: from the live sources before them, and from the constant ones.

    Attributes:
        live: (targets, live sources).
        constant: (targets, constant sources).
        shift: (targets), added to every pixel.
        norm: what follows where it could not be folded into the three above; takes (targets, images, S, S).
    """

    live: Tensor
    constant: Tensor
    shift: Tensor
    norm: nn.Module | None


@dataclass(frozen=True)
class SourcePlan:
    """A group's nodes of one kind: how their inputs are computed and their own filters, (nodes, 1, 3, 3)."""

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
    """A norm as `scale · x + shift`, both by node; or, where it has no such form, as a function."""

    scale: Tensor
    shift: Tensor
    function: nn.InstanceNorm2d | None = None

    def of(self, nodes: Tensor) -> Affine:
        """The norm of some of the nodes."""
        function = None if self.function is None else _some_nodes(self.function, nodes, self.scale)
        return Affine(self.scale[nodes], self.shift[nodes], function)


def as_affine(norm: nn.Module | None, like: Tensor, count: int) -> Affine:
    """Batch norm in evaluation is affine; instance norm is not, and no norm is the identity.

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
        live: what is live in it.
        leaving: the norm that the outputs meet next.
    """
    weight = stage.rule().detach().flatten(1)
    device = weight.device
    kinds = ((live.reached & live.needed).to(device), (~live.reached & live.needed).to(device))
    sources: list[list[Tensor]] = [[], []]
    groups = []
    for group in stage.groups:
        nodes = [_within(kind, group.columns) for kind in kinds]
        live_senders, constant_senders = (
            SourcePlan(_targets(weight, group, chosen, sources), group.filters.detach()[chosen])
            for chosen in nodes
        )
        groups.append(GroupPlan(live_senders, constant_senders, group.stride))
        for listed, chosen in zip(sources, nodes, strict=True):
            listed.append(chosen + group.columns.start)
    affine = as_affine(leaving, weight, stage.outputs.stop - stage.outputs.start)
    needed, reached = live.outputs_needed.to(device), live.outputs_reached.to(device)
    outputs = [
        _product(weight, stage.outputs.start, end.nonzero().flatten(), sources, affine)
        for end in (needed & reached, needed & ~reached)
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
    norm = affine.of(nodes)
    rows = weight[first_row + nodes] * norm.scale.unsqueeze(1)
    empty = nodes.new_empty(0)
    live, constant = (torch.cat([empty, *listed]) for listed in sources)
    function = None if norm.function is None else ByNode(norm.function)
    return TargetPlan(rows[:, live], rows[:, constant], norm.shift, function)


def _within(kind: Tensor, part: slice) -> Tensor:
    return kind[part].nonzero().flatten()


def _some_nodes(norm: nn.InstanceNorm2d, nodes: Tensor, like: Tensor) -> nn.InstanceNorm2d:
    smaller = nn.InstanceNorm2d(max(len(nodes), 1), eps=norm.eps, affine=True).to(like)
    if norm.weight is not None:
        smaller.weight = nn.Parameter(norm.weight.detach()[nodes])
        smaller.bias = nn.Parameter(norm.bias.detach()[nodes])
    smaller.num_features = len(nodes)
    return smaller


class ByNode(nn.Module):
    """Instance norm for maps that come as (nodes, images, S, S)."""

    def __init__(self, norm: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, maps: Tensor) -> Tensor:
        return self.norm(maps.transpose(0, 1)).transpose(0, 1) if maps.numel() else maps


def check_stages(structure: AcyclicStructure) -> None:
    """Refuse a description that contradicts itself.

    Raises:
        WiringError: sizes do not fit together, or there is something that stages cannot have.
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
            f"{stage.name}: the first group has no rows, since it enters from outside; others do"
        )
    end = 0
    for number, group in enumerate(stage.groups):
        where, width = f"{stage.name}: group {number}", group.columns.stop - group.columns.start
        if group.columns.start != end:
            raise WiringError(f"{where} begins at column {group.columns.start}, the one before ends at {end}")
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
    """Refuse a description that contradicts itself.

    Raises:
        WiringError: sizes do not fit together.
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
