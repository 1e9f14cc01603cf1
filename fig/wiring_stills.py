"""Stills of a recorded wiring: edges in use, degrees of the nodes, new edges by epoch, live nodes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from genutil.runs.wiring_record import Array, LayerState, Record, State


def adjacency(pyplot: Any, record: Record, layer: Mapping[str, Any]) -> Any:
    """First and last matrix of edges, in at most 100 by 100 cells."""
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4.2), sharey=True)
    states = (record.states[0], record.states[-1])
    densities = [_density(layer, state.layers[layer["name"]]) for state in states]
    highest = max(density.max() for density in densities)
    for axis, density, state in zip(axes, densities, states, strict=True):
        extent = (0, layer["sources"], layer["targets"], 0)
        image = axis.imshow(density, cmap="Greys", vmin=0, vmax=highest, extent=extent, aspect="auto")
        axis.set(title=_step_text(state), xlabel="source node")
        axis.grid(False)
    axes[0].set_ylabel("target node")
    figure.colorbar(image, ax=axes, label="fraction of the potential edges in use")
    return figure


def _density(layer: Mapping[str, Any], state: LayerState) -> Array:
    rows, columns = np.divmod(state.edge_indices, layer["sources"])
    sizes = [layer["targets"], layer["sources"]]
    cells = [min(100, size) for size in sizes]
    bins = [np.linspace(0, size, count + 1) for size, count in zip(sizes, cells, strict=True)]
    counts, *_ = np.histogram2d(rows, columns, bins=bins)
    potential = np.outer(*(np.histogram(np.arange(size), b)[0] for size, b in zip(sizes, bins, strict=True)))
    density: Array = counts / potential
    return density


def degrees(pyplot: Any, record: Record, layer: Mapping[str, Any]) -> Any:
    """Histograms of the out-degree of sources and the in-degree of targets, first and last."""
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4))
    states = (record.states[0], record.states[-1])
    for axis, (title, dim) in zip(axes, (("edges out of a node", 1), ("edges into a node", 0)), strict=True):
        counts = []
        for state in states:
            nodes = np.divmod(state.layers[layer["name"]].edge_indices, layer["sources"])[dim]
            counts.append(np.bincount(nodes, minlength=layer[("targets", "sources")[dim]]))
        bins = np.histogram_bin_edges(np.concatenate(counts), bins=min(40, max(map(max, counts)) + 1))
        for values, state, line in zip(counts, states, ("--", "-"), strict=True):
            axis.hist(values, bins, histtype="step", label=_step_text(state), linestyle=line, linewidth=1.8)
        axis.set(xlabel=title, ylabel="nodes")
    axes[0].legend()
    return figure


def churn(pyplot: Any, record: Record, layer: Mapping[str, Any]) -> Any:
    """Edges that were not in use an epoch before, in per cent of those in use, by epoch."""
    ends = [state for state in record.states if float(state.numbers["epoch"]).is_integer()]
    figure, axis = pyplot.subplots(figsize=(6, 3.4))
    epochs, percentages = [], []
    for before, state in itertools.pairwise(ends):
        previous, indices = (s.layers[layer["name"]].edge_indices for s in (before, state))
        epochs.append(state.numbers["epoch"])
        percentages.append(100 * (1 - np.isin(indices, previous).sum() / max(indices.size, 1)))
    axis.plot(epochs, percentages)
    axis.set(xlabel="epoch", ylabel="new edges in an epoch, %", ylim=(0, max([1.0, *percentages]) * 1.05))
    axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def live_nodes(pyplot: Any, record: Record, layer: Mapping[str, Any]) -> Any:
    """Source nodes on a path from image to logits, of every wired layer, by step."""
    figure, axis = pyplot.subplots(figsize=(7.5, 3.4))
    steps = [state.numbers["step"] for state in record.states]
    highest = 1
    for wired in record.layout:
        counts = [int(state.layers[wired["name"]].live.sum()) for state in record.states]
        axis.plot(steps, counts, label=f"{wired['name']} (of {wired['sources']:,})", markersize=3)
        highest = max(highest, *counts)
    axis.set(xlabel="training step", ylabel="live nodes", ylim=(0, 1.05 * highest))
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xlim(0, 1.1 * max(*steps, 1))
    axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def _step_text(state: State) -> str:
    """The record of a resumed run may begin at a later step than 0."""
    step = int(state.numbers["step"])
    return f"at step {step:,}" if step else "before training"
