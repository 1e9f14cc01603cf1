"""What a record of a wiring holds of a network: its nodes in columns, and the edges in use."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from genutil.wiring_file import LayerState
from wirings.structure import (
    CyclicStructure,
    effective_edges,
    liveness,
    stages,
    structure_of,
    wired_layers,
)


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
    for layer in wired_layers(model):
        targets, sources = layer.rule.weight.shape[:2]
        stage = next((stage for stage in listed if stage.rule is layer.rule), None)
        cyclic = isinstance(structure, CyclicStructure) and structure.rule is layer.rule
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
                "name": layer.name, "targets": targets, "sources": sources, "acyclic": not cyclic,
                "columns": columns, "outputs": outputs,
            }
        )  # fmt: skip
    return layout


@torch.no_grad()
def wiring_state(model: nn.Module) -> dict[str, LayerState]:
    """The edges in use of each wired layer, their weights, and which sources are live."""
    layers = wired_layers(model)
    states = {}
    for layer, live in zip(layers, _live_sources(model, len(layers)), strict=True):
        in_use = layer.adjacency().cpu()
        places = in_use.flatten().nonzero().flatten()
        weights = layer.rule.weight.detach().cpu().flatten()[places]
        live = in_use.any(0) if live is None else live
        states[layer.name] = LayerState(places.numpy(), weights.float().numpy(), live.numpy())
    return states


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
