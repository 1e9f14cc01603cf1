"""A recorded wiring as an animation (GIF) and as stills (PNG and SVG).

    python -m fig.wiring_gif RUN [--output DIR] [--layer NAME] [--frames N]

RUN is as in fig.wiring_page. Written: `wiring.gif`, and the stills `adjacency` (edges in use, first and
last), `degrees` (of the nodes), `churn` (new edges by epoch) and `live_nodes`.
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
    drawn_edges,
    edge_paths,
    largest_layer,
    live_nodes,
    node_positions,
    num_nodes,
    strongest_edges,
)
from fig.output_files import write_file
from fig.recorded_wiring import find_record, read_drawable
from fig.style import DEAD, INK, NEGATIVE, NEW, POSITIVE, pyplot_in_style, save
from genutil.exceptions import UserError
from genutil.exit_codes import exit_status
from genutil.runs.wiring_record import Array, LayerState, Record, State
from wirings.names import did_you_mean

LEGEND = (POSITIVE, NEGATIVE, NEW, INK, DEAD, "#ffffff")
_OPACITIES = (1, 0.85, 0.7, 0.55, 0.42, 0.3, 0.2, 0.1)
_SECONDS = 12
_NUM_LINES = 5
"""Lines of progress where standard error is not a terminal."""
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
    parser.add_argument("run", type=Path, help="folder of a run, or of its record")
    parser.add_argument(
        "--output", type=Path, help="folder of the pictures; by default pictures/ in the folder of the run"
    )
    parser.add_argument("--layer", help="wired layer; by default the one with the most edges")
    parser.add_argument("--frames", type=int, default=60, help="maximum number of states in the animation")
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
        with pyplot_in_style() as pyplot:
            for file in save(draw(pyplot, record, layer), folder / name):
                print(file)
    return 0


def find_layer(record: Record, name: str | None) -> Mapping[str, Any]:
    """The layer of this name; None: the one with the most edges.

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


def animation(record: Record, layer: Mapping[str, Any], max_states: int) -> bytes:
    """A GIF of up to `max_states` states. New edges have their own color; the last frame is shown longer.

    Progress is written to standard error.
    """
    indices = np.unique(np.linspace(0, len(record.states) - 1, max(1, max_states)).round().astype(int))
    states = [record.states[index] for index in indices]
    colors = Image.new("P", (1, 1))
    colors.putpalette(palette().ravel().tolist())
    with pyplot_in_style() as pyplot:
        frames = []
        for before, state in _with_progress(list(zip([None, *states[:-1]], states, strict=True))):
            figure = draw_frame(pyplot, layer, before, state)
            figure.canvas.draw()
            pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
            pyplot.close(figure)
            frame = Image.fromarray(np.ascontiguousarray(pixels))
            frames.append(frame.quantize(palette=colors, dither=Image.Dither.NONE))
    first, *rest = frames
    duration = max(40, 1000 * _SECONDS // len(frames))
    durations = [duration] * (len(frames) - 1) + [3000]
    buffer, options = io.BytesIO(), {"loop": 0, "optimize": True, "disposal": 1}
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=durations, **options)
    return buffer.getvalue()


def _with_progress(items: Sequence[Any]) -> Iterator[Any]:
    """The items. Progress is a bar on a terminal, and a few plain lines elsewhere."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc="frames", file=sys.stderr, leave=False)
        return
    interval = -(-len(items) // _NUM_LINES)
    for number, item in enumerate(items, 1):
        yield item
        if number % interval == 0 or number == len(items):
            print(f"frame {number} of {len(items)}", file=sys.stderr, flush=True)


def palette() -> Array:
    """(colors, 3), from 0 to 255: the legend's colors, mixtures of two, and all of these over white.

    It is the same for every animation, so that the legend's colors are exact in all of them.
    """
    hues = [np.array(ImageColor.getrgb(color)) for color in LEGEND[:-1]]
    mixed = [(hue + other) / 2 for hue, other in itertools.combinations(hues[:3], 2)]
    white = np.array(ImageColor.getrgb(LEGEND[-1]))
    faded = [white + opacity * (hue - white) for hue in hues + mixed for opacity in _OPACITIES]
    colors = np.array([*hues, *faded])
    # Pillow compares the upper six bits, so that a color very near to white would replace white.
    colors = colors[np.abs(white - colors).max(axis=1) >= 8]
    distinct: Array = np.unique(np.array([*colors, white]).round().astype(np.uint8), axis=0)
    return distinct


def draw_frame(pyplot: Any, layer: Mapping[str, Any], before: State | None, state: State) -> Any:
    """The wiring of one state, with title and legend.

    Args:
        before: the previous state, without which no edge is new.
    """
    figure, axes = pyplot.subplots(figsize=(6.4, 4.5), dpi=100)
    layer_state = state.layers[layer["name"]]
    lines = edge_lines(layer, before.layers[layer["name"]] if before is not None else None, layer_state)
    positions = node_positions(layer)
    for colors, width in (((DEAD,), 0.8), ((POSITIVE, NEGATIVE), 0.8), ((NEW,), 1.1)):
        _add_edges(axes, {color: lines[color] for color in colors if color in lines}, width)
    live = live_nodes(layer, layer_state)
    tallest = max(np.unique(positions[:, 0], return_counts=True)[1])
    size = min(30, max(1.5, (240 / tallest) ** 2))
    for mask, color in ((~live, DEAD), (live, INK)):
        axes.scatter(*positions[mask].T, s=size, c=color, zorder=3, linewidths=0)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.02, 1.02))
    axes.axis("off")
    axes.set_title(_title(layer, state), loc="left", family="monospace")
    figure.legend(
        handles=_legend_handles(), loc="outside lower center", ncols=5, fontsize=8, handlelength=1.4
    )
    return figure


def _add_edges(axes: Any, lines: Mapping[str, tuple[list[Array], Array]], width: float) -> None:
    """Draw edges of several colors, the faintest first, so that no color lies above the other."""
    edges = [
        (opacity, path, color)
        for color, (paths, opacities) in lines.items()
        for path, opacity in zip(paths, opacities, strict=True)
    ]
    if edges:
        opacities, paths, colors = zip(*sorted(edges, key=lambda edge: edge[0]), strict=True)
        axes.add_collection(LineCollection(paths, colors=colors, linewidths=width, alpha=opacities))


def edge_lines(
    layer: Mapping[str, Any], before: LayerState | None, state: LayerState
) -> dict[str, tuple[list[Array], Array]]:
    """Paths and opacities of the edges, by color; of many edges, of the strongest.

    Opacity rises with the rank of the weight's magnitude; that of new edges falls with their number. Edges
    from and to dead nodes have the color of dead nodes.
    """
    codes, weights = drawn_edges(layer, state)
    previous = drawn_edges(layer, before)[0] if before is not None else codes
    strongest = strongest_edges(weights)
    codes, weights = codes[strongest], weights[strongest]
    targets, sources = np.divmod(codes, num_nodes(layer))
    positions, live, count = node_positions(layer), live_nodes(layer, state), max(codes.size, 1)
    dead = ~(live[targets] & live[sources])
    new = ~np.isin(codes, previous) & ~dead
    rank = (1 + np.argsort(np.argsort(np.abs(weights), kind="stable"))) / count
    opacity = (0.1 + 0.8 * rank**2) * min(1.0, max(0.04, 1500 / count))
    opacity[new] = min(0.9, max(0.01, 300 / max(new.sum(), 1)))
    rest = ~new & ~dead
    masks = {DEAD: dead, POSITIVE: rest & (weights > 0), NEGATIVE: rest & (weights <= 0), NEW: new}
    return {
        color: (edge_paths(positions[sources[mask]], positions[targets[mask]]), opacity[mask])
        for color, mask in masks.items()
        if mask.any()
    }


def _title(layer: Mapping[str, Any], state: State) -> str:
    layer_state, accuracy = state.layers[layer["name"]], state.numbers.get("train_accuracy")
    training = "" if accuracy is None else f"   training {accuracy:5.1f} %"
    weights = drawn_edges(layer, layer_state)[1]
    count = strongest_edges(weights).size
    selection = "" if count == weights.size else f"\nstrongest {count:,} of {weights.size:,} edges"
    step, num_live = int(state.numbers["step"]), int(layer_state.live.sum())
    return f"step {step}   {num_live} live nodes{training}{selection}"


def _legend_handles() -> list[Line2D]:
    lines = {"positive": POSITIVE, "negative": NEGATIVE, "new": NEW}
    handles = [Line2D([], [], color=color, marker="", linestyle="-", label=k) for k, color in lines.items()]
    handles.append(Line2D([], [], color=INK, marker="o", linestyle="", label="live node"))
    handles.append(Line2D([], [], color=DEAD, marker="o", linestyle="-", label="dead node, its edges"))
    return handles


if __name__ == "__main__":
    sys.exit(main())
