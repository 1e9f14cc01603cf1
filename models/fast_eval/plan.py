"""What is left of a stage when dead neurons are gone: made once, run by any engine.

A node is **live** if it depends on the image and the logits depend on it. It is a **constant** if only the
latter holds: norm and ReLU of what reaches it, a map that differs at the border through the 3×3 filter.
Constants are computed once for a map size and added to the live nodes as a bias. All other nodes are dead and
left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.graphs.stages import Group, Liveness, Stage


@dataclass(frozen=True)
class Targets:
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
class Senders:
    """A group's nodes of one kind: how their inputs are computed and their own filters, (nodes, 1, 3, 3)."""

    targets: Targets | None
    filters: Tensor


@dataclass(frozen=True)
class GroupPlan:
    """The live and the constant nodes of a group."""

    live: Senders
    constant: Senders
    stride: int


@dataclass(frozen=True)
class StagePlan:
    """Groups in their order, then the nodes that leave."""

    groups: tuple[GroupPlan, ...]
    live_outputs: Targets
    constant_outputs: Targets


@dataclass(frozen=True)
class Affine:
    """A norm as `scale · x + shift`, both by node; or, where it has no such form, as a function."""

    scale: Tensor
    shift: Tensor
    function: nn.InstanceNorm2d | None = None

    def of(self, nodes: Tensor) -> Affine:
        """The norm of some of the nodes."""
        function = None if self.function is None else some_nodes(self.function, nodes)
        return Affine(self.scale[nodes], self.shift[nodes], function)


def as_affine(norm: nn.Module | None, like: Tensor, count: int) -> Affine:
    """Batch norm in evaluation is affine; instance norm is not, and no norm is the identity.

    Raises:
        ValueError: a norm of another kind.
    """
    if norm is None or isinstance(norm, nn.InstanceNorm2d):
        return Affine(like.new_ones(count), like.new_zeros(count), norm)
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_var is None or norm.running_mean is None:
        raise ValueError(f"cannot make a network with {type(norm).__name__} compact")
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
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
            Senders(_targets(weight, group, chosen, sources), group.filters.detach()[chosen])
            for chosen in nodes
        )
        groups.append(GroupPlan(live_senders, constant_senders, group.stride))
        for listed, chosen in zip(sources, nodes, strict=True):
            listed.append(chosen + group.columns.start)
    affine = as_affine(leaving, weight, stage.outputs.stop - stage.outputs.start)
    wanted = live.outputs_needed.to(device)
    ends = [wanted & live.outputs_reached.to(device), wanted & ~live.outputs_reached.to(device)]
    outputs = [
        _product(weight, stage.outputs.start, end.nonzero().flatten(), sources, affine) for end in ends
    ]
    return StagePlan(tuple(groups), *outputs)


def _targets(weight: Tensor, group: Group, nodes: Tensor, sources: list[list[Tensor]]) -> Targets | None:
    if group.rows is None:
        return None
    affine = as_affine(group.norm, weight, group.rows.stop - group.rows.start)
    return _product(weight, group.rows.start, nodes, sources, affine)


def _product(
    weight: Tensor, first_row: int, nodes: Tensor, sources: list[list[Tensor]], affine: Affine
) -> Targets:
    norm = affine.of(nodes)
    rows = weight[first_row + nodes] * norm.scale.unsqueeze(1)
    empty = nodes.new_empty(0)
    live, constant = (torch.cat([empty, *listed]) for listed in sources)
    function = None if norm.function is None else ByNode(norm.function)
    return Targets(rows[:, live], rows[:, constant], norm.shift, function)


def _within(kind: Tensor, part: slice) -> Tensor:
    return kind[part].nonzero().flatten()


def some_nodes(norm: nn.InstanceNorm2d, nodes: Tensor) -> nn.InstanceNorm2d:
    smaller = nn.InstanceNorm2d(max(len(nodes), 1), eps=norm.eps, affine=True).to(norm.weight)
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
