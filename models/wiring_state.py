"""What a record of a wiring holds of a network: its nodes in columns, and the edges in use."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from genutil.runs.wiring_record import LayerState
from wirings.rules.base import EdgeRule
from wirings.stages import EdgeWeights
from wirings.structure import (
    CyclicStructure,
    effective_edges,
    liveness,
    stages,
    structure_of,
    wired_layers,
)
from wirings.wiring import Wiring


def wiring_layout(model: nn.Module) -> list[dict[str, Any]]:
    """The wired layers of a network, as plain values, in the order of the forward pass.

    Each has `name`, `targets` and `sources` (rows and columns of its weight matrix), and for drawing
    `columns`: groups of nodes, each with `sources` (its part of the matrix's columns) and `targets` (its part
    of the rows; null: the nodes enter from outside), and `outputs`, the part of the rows that leaves it
    (null: none). Parts are [first, end]. Where `acyclic` is true, edges lead to later groups and the outputs
    alone.
    """
    structure, listed = structure_of(model), stages(model)
    layout = []
    for name, rule in _rules(model).items():
        targets, sources = _channels(rule)
        stage = next((stage for stage in listed if stage.rule is rule), None)
        cyclic = isinstance(structure, CyclicStructure) and structure.rule is rule
        if stage is not None:
            columns = [_part(group.columns, group.rows) for group in stage.groups]
            outputs: list[int] | None = [stage.outputs.start, stage.outputs.stop]
        elif isinstance(structure, CyclicStructure) and cyclic:
            borders = [0, structure.num_inputs, sources - structure.num_outputs, sources]
            columns = [
                {"sources": [start, end], "targets": [start, end]}
                for start, end in itertools.pairwise(borders)
                if start < end
            ]
            outputs = None
        else:
            columns, outputs = [{"sources": [0, sources], "targets": None}], [0, targets]
        layout.append(
            {
                "name": name, "targets": targets, "sources": sources, "acyclic": not cyclic,
                "columns": columns, "outputs": outputs,
            }
        )  # fmt: skip
    return layout


@torch.no_grad()
def wiring_state(model: nn.Module) -> dict[str, LayerState]:
    """The edges in use of each wired layer, their weights, and which sources are live.

    Of a layer with filters, an edge leads from a channel to a channel and is in use if any weight between
    them is; its weight is the strongest of those.
    """
    rules = _rules(model)
    states = {}
    for (name, rule), live in zip(rules.items(), _live_sources(model, len(rules)), strict=True):
        in_use, weight = _between_channels(rule)
        indices = in_use.flatten().nonzero().flatten()
        live = in_use.any(0) if live is None else live
        states[name] = LayerState(indices.numpy(), weight.flatten()[indices].float().numpy(), live.numpy())
    return states


def _rules(model: nn.Module) -> dict[str, EdgeWeights]:
    """Graphs that the network lists, then its layers that `wire` has wired, by name."""
    rules: dict[str, EdgeWeights] = {graph.name: graph.rule for graph in wired_layers(model)}
    listed = {id(rule) for rule in rules.values()}
    wired = {name.removesuffix(".weight"): rule for name, rule in Wiring(model).rules.items()}
    return rules | {name: rule for name, rule in wired.items() if id(rule) not in listed}


def _channels(rule: EdgeWeights) -> tuple[int, int]:
    """(targets, sources) of a rule's matrix of channels."""
    layer = rule.space.layer if isinstance(rule, EdgeRule) else None
    if isinstance(layer, _ConvNd):
        return layer.out_channels, layer.in_channels
    targets, sources = rule.weight.shape[:2]
    return targets, sources


def _between_channels(rule: EdgeWeights) -> tuple[Tensor, Tensor]:
    """(edges in use, boolean; weights), both (targets, sources) and on the CPU."""
    in_use = rule.in_use().cpu()
    used = in_use.flatten(2) if in_use.dim() > 2 else in_use.unsqueeze(2)
    weights = (rule.weight.detach().cpu().reshape(used.shape) * used).float()
    strongest = weights.gather(2, weights.abs().argmax(2, keepdim=True)).squeeze(2)
    used = used.any(2)
    layer = rule.space.layer if isinstance(rule, EdgeRule) else None
    if not isinstance(layer, _ConvNd):
        return used, strongest
    # A group's rows are sources in a transposed convolution, and targets in any other one.
    parts: list[Tensor] = [
        torch.block_diag(*part.chunk(layer.groups))  # type: ignore[no-untyped-call]
        for part in (used.float(), strongest)
    ]
    if layer.transposed:
        parts = [part.t() for part in parts]
    return parts[0].contiguous() > 0, parts[1].contiguous()


def _live_sources(model: nn.Module, num_layers: int) -> list[Tensor | None]:
    """Boolean (sources) of each layer: those with an edge on a path from image to logits; None: not known."""
    live: list[Tensor | None] = [stage.edges.any(0) for stage in liveness(model)]
    if not live and num_layers == 1:
        effective = effective_edges(model)
        live = [None if effective is None else effective.any(0)]
    return live + [None] * (num_layers - len(live))


def _part(columns: slice, rows: slice | None) -> dict[str, list[int] | None]:
    targets = None if rows is None else [rows.start, rows.stop]
    return {"sources": [columns.start, columns.stop], "targets": targets}
