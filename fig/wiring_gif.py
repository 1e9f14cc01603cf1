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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from PIL import Image, ImageColor
from tqdm import tqdm

from fig import wiring_stills
from fig.drawing import (
    clearest_edges,
    drawn_edges,
    edge_paths,
    largest_layer,
    live_nodes,
    node_places,
    num_nodes,
    read_drawable,
)
from fig.files import write_file
from fig.runs import find_record
from fig.style import DEAD, INK, NEGATIVE, NEW, POSITIVE, drawn, save
from genutil.errors import UserError
from genutil.exit_codes import exit_status
from genutil.runs.wiring_record import Array, LayerState, Record, State
from wirings.names import did_you_mean

LEGEND = (POSITIVE, NEGATIVE, NEW, INK, DEAD, "#ffffff")
_FADES = (1, 0.85, 0.7, 0.55, 0.42, 0.3, 0.2, 0.1)
_LEVELS = 64
"""Of each of red, green and blue, between which the animation's palette is looked up."""
_SECONDS = 12
_LINES = 5
"""Of progress where it is not shown on a terminal."""
STILLS = {
    "adjacency": wiring_stills.adjacency,
    "degrees": wiring_stills.degrees,
    "churn": wiring_stills.churn,
    "live_nodes": wiring_stills.live_nodes,
}


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
    return exit_status(lambda: _main(parser.parse_args(argv)))


def _main(options: argparse.Namespace) -> int:
    path = find_record(options.run)
    record = read_drawable(path)
    layer = find_layer(record, options.layer)
    folder: Path = options.output or path.with_name("pictures")
    content = animation(record, layer, options.frames)
    write_file(folder / "wiring.gif", lambda file: file.write(content))
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
        return layers[largest_layer(record)]
    if name not in layers:
        raise UserError(
            f"--layer: there is no {name}{did_you_mean(name, layers)}; there are {', '.join(layers)}"
        )
    return layers[name]


def animation(record: Record, layer: Mapping[str, Any], most: int) -> bytes:
    """A GIF of up to `most` states; new edges stand out, and the last picture stays longer.

    Progress is written to standard error.
    """
    places = np.unique(np.linspace(0, len(record.states) - 1, max(1, most)).round().astype(int))
    states = [record.states[place] for place in places]
    colours, nearest = palette(), _nearest(palette())
    with drawn() as pyplot:
        frames = []
        for before, state in _with_progress(list(zip([None, *states[:-1]], states, strict=True))):
            figure = draw_frame(pyplot, layer, before, state)
            figure.canvas.draw()
            pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
            pyplot.close(figure)
            red, green, blue = np.moveaxis(pixels // (256 // _LEVELS), -1, 0)
            frame = Image.fromarray(nearest[red, green, blue], "P")
            frame.putpalette(colours.ravel().tolist())
            frames.append(frame)
    first, *rest = frames
    each = max(40, 1000 * _SECONDS // len(frames))
    durations = [each] * (len(frames) - 1) + [3000]
    buffer, kept = io.BytesIO(), {"loop": 0, "optimize": True, "disposal": 1}
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=durations, **kept)
    return buffer.getvalue()


def _with_progress(items: Sequence[Any]) -> Iterator[Any]:
    """The items; how many are done is shown in one line of a terminal, or else in a few plain lines."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc="frames", file=sys.stderr, leave=False)
        return
    interval = -(-len(items) // _LINES)
    for number, item in enumerate(items, 1):
        yield item
        if number % interval == 0 or number == len(items):
            print(f"frame {number} of {len(items)}", file=sys.stderr, flush=True)


def palette() -> Array:
    """(colours, 3): those of every animation, 0 to 255: the legend's, how they fade, and mixtures of two.

    It does not depend on the pictures, so that no colour of the legend is shifted by what else is in them.
    """
    hues = [np.array(ImageColor.getrgb(colour)) for colour in LEGEND[:-1]]
    mixed = [(one + other) / 2 for one, other in itertools.combinations(hues[:3], 2)]
    white = np.array(ImageColor.getrgb(LEGEND[-1]))
    faded = [white + part * (hue - white) for hue in hues + mixed for part in _FADES]
    colours: Array = np.unique(np.array([*hues, white, *faded]).round().astype(np.uint8), axis=0)
    return colours


def _nearest(colours: Array) -> Array:
    """(levels, levels, levels): the number of the nearest colour, by the levels of red, green and blue.

    A colour of the palette is nearest to itself: no two of the legend's have the same levels.
    """
    step = 256 // _LEVELS
    levels = np.arange(_LEVELS) * step + (step - 1) / 2
    table = np.empty((_LEVELS,) * 3, np.uint8)
    for number, red in enumerate(levels):
        cells = np.stack(np.meshgrid([red], levels, levels, indexing="ij"), axis=-1)[0]
        distances = ((cells[..., None, :] - colours) ** 2).sum(axis=-1)
        table[number] = distances.argmin(axis=-1)
    legend = [ImageColor.getrgb(colour) for colour in LEGEND]
    for colour in legend:
        red, green, blue = (value // step for value in colour)
        table[red, green, blue] = np.flatnonzero((colours == colour).all(axis=1))[0]
    return table


def draw_frame(pyplot: Any, layer: Mapping[str, Any], before: State | None, state: State) -> Any:
    """The wiring of one state, with its title and keys.

    Args:
        before: the state that edges are new against; None: none are new.
    """
    figure, axes = pyplot.subplots(figsize=(6.4, 4.5), dpi=100)
    own = state.layers[layer["name"]]
    lines = edge_lines(layer, before.layers[layer["name"]] if before is not None else None, own)
    places = node_places(layer)
    for colours, width in (((DEAD,), 0.8), ((POSITIVE, NEGATIVE), 0.8), ((NEW,), 1.1)):
        _add_edges(axes, {colour: lines[colour] for colour in colours if colour in lines}, width)
    alive = live_nodes(layer, own)
    tallest = max(np.unique(places[:, 0], return_counts=True)[1])
    size = min(30, max(1.5, (240 / tallest) ** 2))
    for which, colour in ((~alive, DEAD), (alive, INK)):
        axes.scatter(*places[which].T, s=size, c=colour, zorder=3, linewidths=0)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.02, 1.02))
    axes.axis("off")
    axes.set_title(_title(layer, state), loc="left", family="monospace")
    figure.legend(handles=_keys(), loc="outside lower center", ncols=5, fontsize=8, handlelength=1.4)
    return figure


def _add_edges(axes: Any, lines: Mapping[str, tuple[list[Array], Array]], width: float) -> None:
    """Draw edges of several colours, the faintest first, so that no colour lies above the other."""
    edges = [
        (part, path, colour) for colour, found in lines.items() for path, part in zip(*found, strict=True)
    ]
    if edges:
        opacity, paths, colours = zip(*sorted(edges, key=lambda edge: edge[0]), strict=True)
        axes.add_collection(LineCollection(paths, colors=colours, linewidths=width, alpha=opacity))


def edge_lines(
    layer: Mapping[str, Any], before: LayerState | None, state: LayerState
) -> dict[str, tuple[list[Array], Array]]:
    """Lines of the edges and how opaque they are, by colour; of many edges, of the strongest.

    The more edges are weaker than one, the more opaque it is; edges that are new fade with their number.
    Edges from and to dead nodes have the colour of these.
    """
    codes, weights = drawn_edges(layer, state)
    known = drawn_edges(layer, before)[0] if before is not None else codes
    clear = clearest_edges(weights)
    codes, weights = codes[clear], weights[clear]
    targets, sources = np.divmod(codes, num_nodes(layer))
    places, alive, count = node_places(layer), live_nodes(layer, state), max(codes.size, 1)
    dead = ~(alive[targets] & alive[sources])
    fresh = ~np.isin(codes, known) & ~dead
    rank = (1 + np.argsort(np.argsort(np.abs(weights), kind="stable"))) / count
    opacity = (0.1 + 0.8 * rank**2) * min(1.0, max(0.04, 1500 / count))
    opacity[fresh] = min(0.9, max(0.01, 300 / max(fresh.sum(), 1)))
    live = ~fresh & ~dead
    shown = {DEAD: dead, POSITIVE: live & (weights > 0), NEGATIVE: live & (weights <= 0), NEW: fresh}
    return {
        colour: (edge_paths(places[sources[which]], places[targets[which]]), opacity[which])
        for colour, which in shown.items()
        if which.any()
    }


def _title(layer: Mapping[str, Any], state: State) -> str:
    own, accuracy = state.layers[layer["name"]], state.numbers.get("train_accuracy")
    reached = "" if accuracy is None else f"   training {accuracy:5.1f} %"
    weights = drawn_edges(layer, own)[1]
    shown = clearest_edges(weights).size
    part = "" if shown == weights.size else f"\nstrongest {shown:,} of {weights.size:,} edges"
    return f"step {int(state.numbers['step'])}   {int(own.live.sum())} live nodes{reached}{part}"


def _keys() -> list[Line2D]:
    lines = {"positive": POSITIVE, "negative": NEGATIVE, "new": NEW}
    marks = [Line2D([], [], color=colour, marker="", linestyle="-", label=k) for k, colour in lines.items()]
    marks.append(Line2D([], [], color=INK, marker="o", linestyle="", label="live node"))
    marks.append(Line2D([], [], color=DEAD, marker="o", linestyle="-", label="dead node, its edges"))
    return marks


if __name__ == "__main__":
    sys.exit(main())
