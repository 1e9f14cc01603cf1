"""A recorded wiring as an animation and as stills.

    python -m fig.wiring_gif RUN [--output DIR] [--layer NAME] [--frames N]

RUN is as in fig.wiring_page. Written: `wiring.gif`, and as PNG and SVG `adjacency` (edges in use, first and
last), `degrees` (edges of the nodes), `churn` (edges that are new, by epoch) and `live_nodes`.
"""

from __future__ import annotations

import argparse
import io
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fig.drawing import drawn_columns, drawn_edges, node_places
from fig.runs import find_record
from fig.style import DEAD, INK, NEGATIVE, NEW, POSITIVE, drawn, save
from genutil.atomic import write_atomically
from genutil.command import exit_status
from genutil.errors import UserError
from genutil.problems import did_you_mean
from genutil.wiring_file import Array, LayerState, Record, State, read_record

_COLOURS = 64
"""Of the animation: it has few, and its size goes with them."""
_SECONDS = 12


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run, or its wiring.npz")
    parser.add_argument(
        "--output", type=Path, help="folder of the pictures; by default pictures/ beside the record"
    )
    parser.add_argument("--layer", help="which wired layer; by default the one with most edges")
    parser.add_argument("--frames", type=int, default=60, help="states of the animation at the most")
    options = parser.parse_args(argv)
    return exit_status(lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    path = find_record(options.run)
    record = read_record(path)
    if not record.states:
        raise UserError(f"{path}: holds no state yet")
    layer = find_layer(record, options.layer)
    folder: Path = options.output or path.with_name("pictures")
    content = animation(record, layer, options.frames)
    write_atomically(folder / "wiring.gif", lambda file: file.write(content))
    print(f"{folder / 'wiring.gif'}: {len(content) / 1e6:.2f} MB")
    for name, draw in STILLS.items():
        with drawn() as pyplot:
            for file in save(draw(pyplot, record, layer), folder / name):
                print(file)
    return 0


def find_layer(record: Record, name: str | None) -> Mapping[str, Any]:
    """The layer of this name; None: the one with most edges.

    Raises:
        UserError: there is none.
    """
    layers = {layer["name"]: layer for layer in record.layout}
    if name is None:
        last = record.states[-1].layers
        return layers[max(layers, key=lambda key: last[key].places.size)]
    if name not in layers:
        raise UserError(
            f"--layer: there is no {name}{did_you_mean(name, layers)}; there are {', '.join(layers)}"
        )
    return layers[name]


def animation(record: Record, layer: Mapping[str, Any], most: int) -> bytes:
    """A GIF of up to `most` states; new edges stand out, and the last picture stays longer."""
    places = np.unique(np.linspace(0, len(record.states) - 1, max(1, most)).round().astype(int))
    states = [record.states[place] for place in places]
    frames = []
    with drawn() as pyplot:
        for before, state in zip([None, *states[:-1]], states, strict=True):
            frames.append(_frame(pyplot, layer, before, state))
    sheet = Image.new("RGB", (frames[0].width, 3 * frames[0].height))
    for number, frame in enumerate((frames[0], frames[len(frames) // 3], frames[-1])):
        sheet.paste(frame, (0, number * frame.height))
    palette = sheet.quantize(_COLOURS)
    first, *rest = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    each = max(40, 1000 * _SECONDS // len(frames))
    buffer = io.BytesIO()
    durations = [each] * (len(frames) - 1) + [3000]
    first.save(
        buffer,
        "GIF",
        save_all=True,
        append_images=rest,
        duration=durations,
        loop=0,
        optimize=True,
        disposal=1,
    )
    return buffer.getvalue()


def _frame(pyplot: Any, layer: Mapping[str, Any], before: State | None, state: State) -> Image.Image:
    from matplotlib.collections import LineCollection

    figure, axes = pyplot.subplots(figsize=(6.4, 4.2), dpi=100)
    own = state.layers[layer["name"]]
    codes, weights = drawn_edges(layer, own)
    nodes, at = drawn_columns(layer)["nodes"], node_places(layer)
    known = drawn_edges(layer, before.layers[layer["name"]])[0] if before is not None else codes
    fresh = ~np.isin(codes, known)
    targets, sources = np.divmod(codes, nodes)
    strength = np.sqrt(np.abs(weights) / (np.abs(weights).max(initial=0) or 1))
    thin = min(1.0, max(0.04, 1500 / max(codes.size, 1)))
    for chosen, colour in ((weights > 0, POSITIVE), (weights <= 0, NEGATIVE), (fresh, NEW)):
        shown = chosen & (fresh if colour == NEW else ~fresh)
        if not shown.any():
            continue
        lines = np.stack([at[sources[shown]], at[targets[shown]]], axis=1)
        opacity = np.full(shown.sum(), 0.8) if colour == NEW else (0.1 + 0.8 * strength[shown]) * thin
        axes.add_collection(LineCollection(list(lines), colors=colour, linewidths=0.8, alpha=opacity))
    alive = np.concatenate([own.live, np.ones(nodes - own.live.size, bool)])
    size = min(30, 2500 / max(np.unique(at[:, 0], return_counts=True)[1]))
    for which, colour in ((~alive, DEAD), (alive, INK)):
        axes.scatter(*at[which].T, s=size, c=colour, zorder=3, linewidths=0)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.02, 1.02))
    axes.axis("off")
    numbers = state.numbers
    accuracy = f"   training {numbers['train_accuracy']:5.1f} %" if "train_accuracy" in numbers else ""
    axes.set_title(
        f"step {int(numbers['step'])}   {own.live.sum()} live nodes{accuracy}", loc="left", family="monospace"
    )
    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    pyplot.close(figure)
    return picture


def adjacency(pyplot: Any, record: Record, layer: Mapping[str, Any]) -> Any:
    """First and last matrix of edges, in cells of up to 100 by 100."""
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4.2), sharey=True)
    shown = [(record.states[0], "before training"), (record.states[-1], "at the end")]
    densities = [_density(layer, state.layers[layer["name"]]) for state, _ in shown]
    highest = max(density.max() for density in densities)
    for axis, density, (state, when) in zip(axes, densities, shown, strict=True):
        extent = (0, layer["sources"], layer["targets"], 0)
        image = axis.imshow(density, cmap="Greys", vmin=0, vmax=highest, extent=extent, aspect="auto")
        axis.set(title=f"{when} (step {int(state.numbers['step'])})", xlabel="source node")
        axis.grid(False)
    axes[0].set_ylabel("target node")
    figure.colorbar(image, ax=axes, label="part of the potential edges in use")
    return figure


def _density(layer: Mapping[str, Any], state: LayerState) -> Array:
    rows, columns = np.divmod(state.places, layer["sources"])
    sizes = [layer["targets"], layer["sources"]]
    cells = [min(100, size) for size in sizes]
    edges = [np.linspace(0, size, count + 1) for size, count in zip(sizes, cells, strict=True)]
    counts, *_ = np.histogram2d(rows, columns, bins=edges)
    potential = np.outer(*(np.histogram(np.arange(size), e)[0] for size, e in zip(sizes, edges, strict=True)))
    density: Array = counts / potential
    return density


def degrees(pyplot: Any, record: Record, layer: Mapping[str, Any]) -> Any:
    """How many edges leave a source and reach a target, first and last."""
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4))
    for axis, (title, place) in zip(
        axes, (("edges out of a node", 1), ("edges into a node", 0)), strict=True
    ):
        counts = []
        for state in (record.states[0], record.states[-1]):
            ends = np.divmod(state.layers[layer["name"]].places, layer["sources"])[place]
            counts.append(np.bincount(ends, minlength=layer[("targets", "sources")[place]]))
        bins = np.histogram_bin_edges(np.concatenate(counts), bins=min(40, max(map(max, counts)) + 1))
        for values, label, line in zip(counts, ("before training", "at the end"), ("--", "-"), strict=True):
            axis.hist(values, bins, histtype="step", label=label, linestyle=line, linewidth=1.8)
        axis.set(xlabel=title, ylabel="nodes")
    axes[0].legend()
    return figure


def churn(pyplot: Any, record: Record, layer: Mapping[str, Any]) -> Any:
    """Edges that were not in use an epoch before, in per cent of those in use."""
    ends = [state for state in record.states if float(state.numbers["epoch"]).is_integer()]
    figure, axis = pyplot.subplots(figsize=(6, 3.4))
    epochs, parts = [], []
    for before, state in itertools.pairwise(ends):
        then, now = (one.layers[layer["name"]].places for one in (before, state))
        epochs.append(state.numbers["epoch"])
        parts.append(100 * (1 - np.isin(now, then).sum() / max(now.size, 1)))
    axis.plot(epochs, parts)
    axis.set(xlabel="epoch", ylabel="new since the epoch before, %", ylim=(0, None))
    return figure


def live_nodes(pyplot: Any, record: Record, layer: Mapping[str, Any]) -> Any:
    """Source nodes on a path from image to logits, of every wired layer, by step."""
    figure, axis = pyplot.subplots(figsize=(6, 3.4))
    steps = [state.numbers["step"] for state in record.states]
    for each in record.layout:
        counts = [state.layers[each["name"]].live.sum() for state in record.states]
        axis.plot(steps, counts, label=f"{each['name']} (of {each['sources']:,})", markersize=3)
    axis.set(xlabel="training step", ylabel="live nodes", ylim=(0, None))
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xlim(0, max(*steps, 1))
    axis.legend()
    return figure


STILLS = {"adjacency": adjacency, "degrees": degrees, "churn": churn, "live_nodes": live_nodes}

if __name__ == "__main__":
    sys.exit(main())
