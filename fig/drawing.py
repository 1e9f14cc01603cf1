"""A wired layer as it is drawn: nodes in columns, and the edges between them that the forward pass reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from genutil.wiring_file import Array, LayerState


def drawn_edges(layer: Mapping[str, Any], state: LayerState) -> tuple[Array, Array]:
    """The edges that the forward pass reads: their numbers, target · nodes + source, rising; their weights.

    Nodes are the sources, and after them the outputs.
    """
    rows, sources = np.divmod(state.places, layer["sources"])
    column_of_source = np.zeros(layer["sources"], int)
    column_of_row, node_of_row = np.full(layer["targets"], -1), np.full(layer["targets"], -1)
    for number, column in enumerate(layer["columns"]):
        column_of_source[slice(*column["sources"])] = number
        if column["targets"] is not None:
            column_of_row[slice(*column["targets"])] = number
            node_of_row[slice(*column["targets"])] = np.arange(*column["sources"])
    targets = node_of_row[rows]
    if layer["acyclic"]:
        leaving = np.full(layer["targets"], -1)
        if layer["outputs"] is not None:
            first, end = layer["outputs"]
            leaving[first:end] = layer["sources"] + np.arange(end - first)
        targets = np.where(column_of_row[rows] > column_of_source[sources], targets, leaving[rows])
    codes = targets * _num_nodes(layer) + sources
    order = np.argsort(codes)
    order = order[targets[order] >= 0]
    return codes[order], state.weights[order]


def drawn_columns(layer: Mapping[str, Any]) -> dict[str, Any]:
    """A layer as it is drawn: `name`, `sources`, `nodes`, and `columns` with `start`, `end` and `label`."""
    columns = [
        {"start": column["sources"][0], "end": column["sources"][1], "label": _label(layer, number)}
        for number, column in enumerate(layer["columns"])
    ]
    nodes = _num_nodes(layer)
    if nodes > layer["sources"]:
        columns.append({"start": layer["sources"], "end": nodes, "label": "outputs"})
    return {"name": layer["name"], "sources": layer["sources"], "nodes": nodes, "columns": columns}


def _label(layer: Mapping[str, Any], number: int) -> str:
    if number == 0:
        return "inputs"
    if layer["acyclic"]:
        return f"block {number}"
    return "outputs" if number == len(layer["columns"]) - 1 else "hidden"


def _num_nodes(layer: Mapping[str, Any]) -> int:
    outputs = layer["outputs"] or (0, 0)
    return int(layer["sources"] + outputs[1] - outputs[0])


def node_places(layer: Mapping[str, Any]) -> Array:
    """(nodes, 2): places of the nodes, from 0 to 1 from left to right and from bottom to top."""
    columns = drawn_columns(layer)["columns"]
    places = np.zeros((_num_nodes(layer), 2))
    for number, column in enumerate(columns):
        size = column["end"] - column["start"]
        places[column["start"] : column["end"], 0] = number / max(len(columns) - 1, 1)
        places[column["start"] : column["end"], 1] = 1 - (np.arange(size) + 0.5) / size
    return places
