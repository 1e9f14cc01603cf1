"""A wired layer as it is drawn: nodes in columns, and the edges between them that the forward pass reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    model_validator,
)

from genutil.errors import UserError
from genutil.runs.wiring_record import Array, LayerState, Record, read_record

BULGE = 0.11
"""How far a bow within a column is from it, as part of the picture's width, if it goes from top to bottom."""
_MARGIN = 0.1
"""Beside the outer columns of a graph with cycles, for the bows within them."""
_LOOP, _CORNERS = 0.012, 17
_CLEAR, _SMALL = 1500, 2000
"""Edges that a picture shows clearly; up to how many all are drawn. The page has the same numbers."""


def read_drawable(path: Path) -> Record:
    """A record with something to draw.

    Raises:
        UserError: it has no wired layer or no state, or it cannot be read.
    """
    record = read_record(path)
    if not record.layout:
        raise UserError(
            f"{path}: the network has no wired layer; train one whose edges are chosen by a graph"
        )
    if not record.states:
        raise UserError(f"{path}: holds no state yet; wait until the training has begun")
    for layer in record.layout:
        try:
            _Layer.model_validate(layer)
        except ValidationError as error:
            found = error.errors()[0]
            where = " ".join(map(str, found["loc"]))
            message = f"its layer {layer['name']} cannot be drawn ({where}: {found['msg']})"
            raise UserError(f"{path}: is damaged: {message}") from error
    return record


def _ordered(part: tuple[int, int]) -> tuple[int, int]:
    if not 0 <= part[0] <= part[1]:
        raise ValueError("must be [first, end]")
    return part


_Part = Annotated[tuple[StrictInt, StrictInt], AfterValidator(_ordered)]


class _Column(BaseModel):
    sources: _Part
    targets: _Part | None

    @model_validator(mode="after")
    def _same_length(self) -> _Column:
        if self.targets and self.targets[1] - self.targets[0] != self.sources[1] - self.sources[0]:
            raise ValueError("sources and targets must be the same nodes")
        return self


class _Layer(BaseModel):
    """What is needed of a layer's layout; see models.wiring_state."""

    targets: int
    sources: int
    acyclic: StrictBool
    columns: list[_Column] = Field(min_length=1)
    outputs: _Part | None

    @model_validator(mode="after")
    def _inside(self) -> _Layer:
        rows = [column.targets for column in self.columns if column.targets]
        rows += [self.outputs] if self.outputs else []
        beyond = any(part[1] > self.targets for part in rows)
        if beyond or any(column.sources[1] > self.sources for column in self.columns):
            raise ValueError("columns and outputs must lie inside of the matrix")
        return self


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
    codes = targets * num_nodes(layer) + sources
    order = np.argsort(codes)
    order = order[targets[order] >= 0]
    return codes[order], state.weights[order]


def drawn_columns(layer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The columns of a layer as it is drawn: `start`, `end`, `label`, and the place `x` from 0 to 1."""
    columns = [
        {"start": column["sources"][0], "end": column["sources"][1], "label": _label(layer, number)}
        for number, column in enumerate(layer["columns"])
    ]
    if num_nodes(layer) > layer["sources"]:
        columns.append({"start": layer["sources"], "end": num_nodes(layer), "label": "outputs"})
    margin = 0.0 if layer["acyclic"] else _MARGIN
    for number, column in enumerate(columns):
        part = number / (len(columns) - 1) if len(columns) > 1 else 0.5
        column["x"] = round(margin + (1 - 2 * margin) * part, 4)
    return columns


def _label(layer: Mapping[str, Any], number: int) -> str:
    if number == 0:
        return "inputs"
    if layer["acyclic"]:
        return f"block {number}"
    return "outputs" if number == len(layer["columns"]) - 1 else "hidden"


def num_nodes(layer: Mapping[str, Any]) -> int:
    """Sources, and after them the outputs where these are no sources."""
    outputs = layer["outputs"] or (0, 0)
    return int(layer["sources"] + outputs[1] - outputs[0])


def output_nodes(layer: Mapping[str, Any]) -> tuple[int, int]:
    """First and end of the nodes that the next layer reads: of a graph with cycles, its last column."""
    if layer["acyclic"]:
        return layer["sources"], num_nodes(layer)
    first, end = layer["columns"][-1]["sources"]
    return first, end


def live_nodes(layer: Mapping[str, Any], state: LayerState) -> Array:
    """Boolean (nodes): which nodes are drawn as live; outputs always are, since the next layer reads them."""
    live = np.concatenate([state.live, np.zeros(num_nodes(layer) - state.live.size, bool)])
    live[slice(*output_nodes(layer))] = True
    return live


def clearest_edges(weights: Array) -> Array:
    """Places of the edges to draw, rising: all where they are few, or else the strongest."""
    if weights.size <= _SMALL:
        return np.arange(weights.size)
    return np.sort(np.argsort(-np.abs(weights), kind="stable")[:_CLEAR])


def largest_layer(record: Record) -> str:
    """Name of the layer with the most edges in use at the last state."""
    last = record.states[-1].layers
    names: list[str] = [layer["name"] for layer in record.layout]
    return max(names, key=lambda name: last[name].places.size)


def node_places(layer: Mapping[str, Any]) -> Array:
    """(nodes, 2): places of the nodes, from 0 to 1 from left to right and from bottom to top."""
    places = np.zeros((num_nodes(layer), 2))
    for column in drawn_columns(layer):
        size = column["end"] - column["start"]
        places[column["start"] : column["end"], 0] = column["x"]
        places[column["start"] : column["end"], 1] = 1 - (np.arange(size) + 0.5) / size
    return places


def edge_paths(sources: Array, targets: Array) -> list[Array]:
    """(corners, 2) of each edge: a line between columns, a bow within one, a circle from a node to itself.

    A bow lies to the right on its way down and to the left on its way up.

    Args:
        sources: (edges, 2), places of the nodes that they come from.
        targets: (edges, 2), places of those that they lead to.
    """
    part = np.linspace(0, 1, _CORNERS)
    bow, circle = 4 * part * (1 - part), np.array([1 - np.cos(2 * np.pi * part), np.sin(2 * np.pi * part)]).T
    paths = []
    for source, target in zip(sources, targets, strict=True):
        if source[0] != target[0]:
            path = np.stack([source, target])
        elif source[1] == target[1]:
            path = source + _LOOP * circle
        else:
            path = source + part[:, None] * (target - source)
            path[:, 0] += BULGE * (source[1] - target[1]) * bow
        paths.append(path)
    return paths
