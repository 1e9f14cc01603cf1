"""Layout and state of a network's wiring, for records: nodes in columns, and the edges in use."""

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

    Each has `name`, `targets` and `sources` (numbers of rows and columns of its weight matrix), and for
    drawing `columns`: groups of nodes, each with `sources` (a range of the matrix's columns) and `targets` (a
    range of the rows; null: the nodes enter from outside), and `outputs`, the range of the rows that leave
    the layer (null: none). Ranges are [first, end]. If `acyclic` is true, edges lead only to later
    groups and the outputs.
    """
    structure, all_stages = structure_of(model), stages(model)
    layout = []
    for name, rule in _rules(model).items():
        targets, sources = _channels(rule)
        stage = next((stage for stage in all_stages if stage.rule is rule), None)
        cyclic = isinstance(structure, CyclicStructure) and structure.rule is rule
        if stage is not None:
            columns = [_column(group.columns, group.rows) for group in stage.groups]
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

    In a layer with filters, an edge between two channels is in use if any of its weights is, and has the
    strongest of them.
    """
    rules = _rules(model)
    states = {}
    for (name, rule), live in zip(rules.items(), _live_sources(model, len(rules)), strict=True):
        in_use, weight = _channel_edges(rule)
        indices = in_use.flatten().nonzero().flatten()
        live = in_use.any(0) if live is None else live
        states[name] = LayerState(indices.numpy(), weight.flatten()[indices].float().numpy(), live.numpy())
    return states


def _rules(model: nn.Module) -> dict[str, EdgeWeights]:
    """Edge rules by name: of the graphs that the network lists, then of the layers wired by `wire`."""
    rules: dict[str, EdgeWeights] = {graph.name: graph.rule for graph in wired_layers(model)}
    ids = {id(rule) for rule in rules.values()}
    wired = {name.removesuffix(".weight"): rule for name, rule in Wiring(model).rules.items()}
    return rules | {name: rule for name, rule in wired.items() if id(rule) not in ids}


def _channels(rule: EdgeWeights) -> tuple[int, int]:
    """(targets, sources) of a rule's matrix of channels."""
    layer = rule.potential.layer if isinstance(rule, EdgeRule) else None
    if isinstance(layer, _ConvNd):
        return layer.out_channels, layer.in_channels
    targets, sources = rule.weight.shape[:2]
    return targets, sources


def _channel_edges(rule: EdgeWeights) -> tuple[Tensor, Tensor]:
    """(edges in use, boolean; weights), both (targets, sources) and on the CPU."""
    in_use = rule.in_use().cpu()
    used = in_use.flatten(2) if in_use.dim() > 2 else in_use.unsqueeze(2)
    weights = (rule.weight.detach().cpu().reshape(used.shape) * used).float()
    strongest = weights.gather(2, weights.abs().argmax(2, keepdim=True)).squeeze(2)
    used = used.any(2)
    layer = rule.potential.layer if isinstance(rule, EdgeRule) else None
    if not isinstance(layer, _ConvNd):
        return used, strongest
    # A group's rows are sources in a transposed convolution, and targets in any other one.
    matrices: list[Tensor] = [
        torch.block_diag(*matrix.chunk(layer.groups))  # type: ignore[no-untyped-call]
        for matrix in (used.float(), strongest)
    ]
    if layer.transposed:
        matrices = [matrix.t() for matrix in matrices]
    return matrices[0].contiguous() > 0, matrices[1].contiguous()


def _live_sources(model: nn.Module, num_layers: int) -> list[Tensor | None]:
    """Boolean (sources) of each layer: those with an edge on a path from image to logits; None: not known."""
    live: list[Tensor | None] = [stage.edges.any(0) for stage in liveness(model)]
    if not live and num_layers == 1:
        effective = effective_edges(model)
        live = [None if effective is None else effective.any(0)]
    return live + [None] * (num_layers - len(live))


def _column(columns: slice, rows: slice | None) -> dict[str, list[int] | None]:
    targets = None if rows is None else [rows.start, rows.stop]
    return {"sources": [columns.start, columns.stop], "targets": targets}
