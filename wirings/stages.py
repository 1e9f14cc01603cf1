"""Stages of acyclic wired networks, and which of their nodes and edges the logits depend on.

A network is a chain of stages. In a stage, groups of nodes send one after the other: the nodes of a group sum
the maps from earlier groups over their edges, then apply norm, ReLU and their 3×3 filters. The rows `outputs`
sum the maps of all groups; they leave the stage and enter the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn


class EdgeWeights(Protocol):
    """Weights of all potential edges, and which of them are in use. Edge rules are such modules."""

    @property
    def weight(self) -> Tensor:
        """(targets, sources, …); further dimensions have the size 1."""

    def __call__(self) -> Tensor:
        """The weights in use and zero elsewhere, in the shape of `weight`."""

    def in_use(self) -> Tensor:
        """The mask of the edges in use: boolean, in the shape of `weight`."""


@dataclass(frozen=True)
class Group:
    """Nodes of a stage that send together.

    Attributes:
        columns: the nodes as sources, columns of the weight matrix.
        rows: the nodes as targets, rows of it; None: they enter from outside.
        norm: norm over the nodes' maps: a batch norm, an instance norm, or None.
        filters: (nodes, 1, 3, 3).
        stride: of the filters; other than 1 only in the first group of a stage.
    """

    columns: slice
    rows: slice | None
    norm: nn.Module | None
    filters: Tensor
    stride: int = 1


@dataclass(frozen=True)
class Stage:
    """An acyclic graph, whose edges are the entries of one weight.

    Attributes:
        name: state-dict name of the edge rule.
        rule: the edge rule.
        groups: in the order in which they send; the first one's nodes enter from outside, those of the others
            are targets in `rule`. Their columns follow each other from 0 on.
        outputs: rows of the nodes that leave. They may be rows of a group, too.
    """

    name: str
    rule: EdgeWeights
    groups: tuple[Group, ...]
    outputs: slice

    def readable_mask(self) -> Tensor:
        """Boolean (targets, sources): the readable edges, those that the forward pass reads."""
        rows, columns = self.rule.weight.shape[:2]
        readable_mask = torch.zeros(rows, columns, dtype=torch.bool)
        for number, group in enumerate(self.groups):
            for later in self.groups[number + 1 :]:
                assert later.rows is not None
                readable_mask[later.rows, group.columns] = True
            readable_mask[self.outputs, group.columns] = True
        return readable_mask


@dataclass(frozen=True)
class Liveness:
    """Which nodes of a stage are live. All tensors are boolean and on the CPU.

    Attributes:
        edges: (targets, sources), in use, read, and on a path from the image to the logits.
        reached: (sources), nodes that depend on the image.
        needed: (sources), nodes with a path to the logits.
        outputs_reached, outputs_needed: (outputs), the same for the nodes that leave.
    """

    edges: Tensor
    reached: Tensor
    needed: Tensor
    outputs_reached: Tensor
    outputs_needed: Tensor


def find_liveness(stages: Sequence[Stage], read: Tensor | None = None) -> list[Liveness]:
    """Follow the edges in use from the image forward and from the logits back.

    Args:
        stages: of one network, in order. Every node that enters the first one depends on the image.
        read: boolean, which outputs of the last stage the classifier reads; None: all.
    """
    used = [(stage.rule.in_use().flatten(1).cpu() & stage.readable_mask()) for stage in stages]
    reached, leaving = _forward(stages, used)
    needed, outputs_needed = _backward(stages, used, read)
    results = []
    for number, stage in enumerate(stages):
        target_needed = torch.zeros(len(used[number]), dtype=torch.bool)
        target_needed[stage.outputs] |= outputs_needed[number]
        for group in stage.groups:
            if group.rows is not None:
                target_needed[group.rows] |= needed[number][group.columns]
        edges = used[number] & reached[number] & target_needed.unsqueeze(1)
        results.append(
            Liveness(edges, reached[number], needed[number], leaving[number], outputs_needed[number])
        )
    return results


def _forward(stages: Sequence[Stage], used: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """(sources that depend on the image, outputs that do) of each stage."""
    reached, leaving = [], []
    entering = torch.ones(_width(stages[0].groups[0].columns), dtype=torch.bool)
    for stage, edges in zip(stages, used, strict=True):
        live = torch.zeros(edges.shape[1], dtype=torch.bool)
        live[stage.groups[0].columns] = entering
        for earlier, group in pairwise(stage.groups):
            assert group.rows is not None
            live[group.columns] = (
                edges[group.rows, : earlier.columns.stop] & live[: earlier.columns.stop]
            ).any(1)
        entering = (edges[stage.outputs] & live).any(1)
        reached.append(live)
        leaving.append(entering)
    return reached, leaving


def _backward(
    stages: Sequence[Stage], used: list[Tensor], read: Tensor | None
) -> tuple[list[Tensor], list[Tensor]]:
    """(sources that the logits depend on, outputs that they do) of each stage."""
    needed: list[Tensor] = []
    outputs_needed: list[Tensor] = []
    leaving = torch.ones(_width(stages[-1].outputs), dtype=torch.bool) if read is None else read
    for stage, edges in zip(reversed(stages), reversed(used), strict=True):
        target = torch.zeros(len(edges), dtype=torch.bool)
        target[stage.outputs] = leaving
        source = torch.zeros(edges.shape[1], dtype=torch.bool)
        for group in reversed(stage.groups):
            source[group.columns] = (edges[:, group.columns] & target.unsqueeze(1)).any(0)
            if group.rows is not None:
                target[group.rows] |= source[group.columns]
        needed.insert(0, source)
        outputs_needed.insert(0, leaving)
        leaving = source[stage.groups[0].columns]
    return needed, outputs_needed


def effective_in_cycles(in_use: Tensor, num_inputs: int, num_outputs: int, steps: int | None) -> Tensor:
    """Boolean (nodes, nodes): edges on a path from the first `num_inputs` to the last `num_outputs` nodes.

    Args:
        in_use: boolean (nodes, nodes), targets by sources.
        num_inputs, num_outputs: nodes that have a state at first, and whose last state is read.
        steps: length of a path, since each step replaces all states; None: states are updated, as in
            continuous time, so a path may have any length.
    """
    edges = in_use.cpu()
    reached, needed = (torch.zeros(len(edges), dtype=torch.bool) for _ in range(2))
    reached[:num_inputs], needed[-num_outputs:] = True, True
    is_continuous = steps is None
    reached_at, needed_at = [reached], [needed]
    for _ in range(len(edges) if steps is None else steps):
        reached_at.append((edges & reached_at[-1]).any(1) | (reached_at[-1] & is_continuous))
        needed_at.append((edges & needed_at[-1].unsqueeze(1)).any(0) | (needed_at[-1] & is_continuous))
        if is_continuous and torch.equal(*reached_at[-2:]) and torch.equal(*needed_at[-2:]):
            break
    effective = torch.zeros_like(edges)
    if steps is None:
        return edges & reached_at[-1] & needed_at[-1].unsqueeze(1)
    for step in range(steps):
        effective |= edges & reached_at[step] & needed_at[steps - 1 - step].unsqueeze(1)
    return effective


def _width(nodes: slice) -> int:
    return int(nodes.stop - nodes.start)
