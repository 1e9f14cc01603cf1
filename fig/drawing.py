"""Geometry of a wired layer: nodes in columns, and the edges between them that the forward pass reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from genutil.runs.wiring_record import Array, LayerState, Record

BULGE = 0.11
"""Distance of an arc from its column, as a fraction of the width, for an arc over the whole height."""
_MARGIN = 0.1
"""Left and right of the columns of a graph with cycles, for the arcs within them."""
_LOOP_RADIUS, _NUM_POINTS = 0.012, 17
_NUM_STRONGEST, _MAX_ALL = 1500, 2000
"""Up to `_MAX_ALL` edges all are drawn, of more the strongest. The page has the same numbers."""


def drawn_edges(layer: Mapping[str, Any], state: LayerState) -> tuple[Array, Array]:
    """The edges that the forward pass reads: their codes, target · nodes + source, ascending; their weights.

    Nodes are the sources, and after them the outputs.
    """
    rows, sources = np.divmod(state.edge_indices, layer["sources"])
    column_of_source = np.zeros(layer["sources"], int)
    column_of_row, node_of_row = np.full(layer["targets"], -1), np.full(layer["targets"], -1)
    for index, column in enumerate(layer["columns"]):
        column_of_source[slice(*column["sources"])] = index
        if column["targets"] is not None:
            column_of_row[slice(*column["targets"])] = index
            node_of_row[slice(*column["targets"])] = np.arange(*column["sources"])
    targets = node_of_row[rows]
    if layer["acyclic"]:
        output_of_row = np.full(layer["targets"], -1)
        if layer["outputs"] is not None:
            first, end = layer["outputs"]
            output_of_row[first:end] = layer["sources"] + np.arange(end - first)
        is_forward = column_of_row[rows] > column_of_source[sources]
        targets = np.where(is_forward, targets, output_of_row[rows])
    codes = targets * num_nodes(layer) + sources
    order = np.argsort(codes)
    order = order[targets[order] >= 0]
    return codes[order], state.weights[order]


def drawn_columns(layer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The columns of a layer: `start` and `end` of their nodes, `label`, and the position `x` from 0 to 1."""
    columns = [
        {"start": column["sources"][0], "end": column["sources"][1], "label": _label(layer, index)}
        for index, column in enumerate(layer["columns"])
    ]
    if num_nodes(layer) > layer["sources"]:
        columns.append({"start": layer["sources"], "end": num_nodes(layer), "label": "outputs"})
    margin = 0.0 if layer["acyclic"] else _MARGIN
    for index, column in enumerate(columns):
        fraction = index / (len(columns) - 1) if len(columns) > 1 else 0.5
        column["x"] = round(margin + (1 - 2 * margin) * fraction, 4)
    return columns


def _label(layer: Mapping[str, Any], index: int) -> str:
    if index == 0:
        return "inputs"
    if layer["acyclic"]:
        return f"group {index}"
    return "outputs" if index == len(layer["columns"]) - 1 else "hidden"


def num_nodes(layer: Mapping[str, Any]) -> int:
    """Number of nodes: the sources, and the outputs that are not sources."""
    outputs = layer["outputs"] or (0, 0)
    return int(layer["sources"] + outputs[1] - outputs[0])


def output_nodes(layer: Mapping[str, Any]) -> tuple[int, int]:
    """First and end of the nodes that the next layer reads: of a graph with cycles, its last column."""
    if layer["acyclic"]:
        return layer["sources"], num_nodes(layer)
    first, end = layer["columns"][-1]["sources"]
    return first, end


def live_nodes(layer: Mapping[str, Any], state: LayerState) -> Array:
    """Boolean (nodes): which are drawn as live. Outputs always are, since the next layer reads them."""
    live = np.concatenate([state.live, np.zeros(num_nodes(layer) - state.live.size, bool)])
    live[slice(*output_nodes(layer))] = True
    return live


def strongest_edges(weights: Array) -> Array:
    """Indices of the edges to draw, ascending: all where they are few, or else the strongest."""
    if weights.size <= _MAX_ALL:
        return np.arange(weights.size)
    return np.sort(np.argsort(-np.abs(weights), kind="stable")[:_NUM_STRONGEST])


def largest_layer(record: Record) -> str:
    """Name of the layer with the most edges in use at the last state."""
    last = record.states[-1].layers
    names: list[str] = [layer["name"] for layer in record.layout]
    return max(names, key=lambda name: last[name].edge_indices.size)


def node_positions(layer: Mapping[str, Any]) -> Array:
    """(nodes, 2): x and y of the nodes, from 0 to 1, from left to right and from bottom to top."""
    positions = np.zeros((num_nodes(layer), 2))
    for column in drawn_columns(layer):
        size = column["end"] - column["start"]
        positions[column["start"] : column["end"], 0] = column["x"]
        positions[column["start"] : column["end"], 1] = 1 - (np.arange(size) + 0.5) / size
    return positions


def edge_paths(sources: Array, targets: Array) -> list[Array]:
    """(points, 2) of each edge: a line between columns, an arc within one, a circle from a node to itself.

    Arcs downwards lie right of the column, arcs upwards left of it.

    Args:
        sources, targets: (edges, 2), positions of the nodes at the edges' ends.
    """
    t = np.linspace(0, 1, _NUM_POINTS)
    arc, circle = 4 * t * (1 - t), np.array([1 - np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)]).T
    paths = []
    for source, target in zip(sources, targets, strict=True):
        if source[0] != target[0]:
            path = np.stack([source, target])
        elif source[1] == target[1]:
            path = source + _LOOP_RADIUS * circle
        else:
            path = source + t[:, None] * (target - source)
            path[:, 0] += BULGE * (source[1] - target[1]) * arc
        paths.append(path)
    return paths
