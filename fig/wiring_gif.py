"""A recorded wiring as an animation and as stills.

    python -m fig.wiring_gif RUN [--output DIR] [--layer NAME] [--frames N]

RUN is as in fig.wiring_page. Written: `wiring.gif`, and as PNG and SVG `adjacency` (edges in use, first and
last), `degrees` (edges of the nodes), `churn` (edges that are new, by epoch) and `live_nodes`.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from PIL import Image, ImageColor

from fig.drawing import drawn_edges, edge_paths, node_places, num_nodes, read_drawable
from fig.files import write_file
from fig.runs import find_record
from fig.style import DEAD, INK, NEGATIVE, NEW, POSITIVE, drawn, save
from fig.wiring_stills import adjacency, churn, degrees, live_nodes
from genutil.command import exit_status
from genutil.errors import UserError
from genutil.problems import did_you_mean
from genutil.wiring_file import Array, LayerState, Record, State

_COLOURS = 48
"""Of the animation: it has few, and its size goes with them."""
_SECONDS = 12
STILLS = {"adjacency": adjacency, "degrees": degrees, "churn": churn, "live_nodes": live_nodes}


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
    with drawn() as pyplot:
        frames = []
        for before, state in zip([None, *states[:-1]], states, strict=True):
            figure = draw_frame(pyplot, layer, before, state)
            figure.canvas.draw()
            frames.append(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB"))
            pyplot.close(figure)
    palette = _palette(frames)
    first, *rest = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    each = max(40, 1000 * _SECONDS // len(frames))
    durations = [each] * (len(frames) - 1) + [3000]
    buffer, kept = io.BytesIO(), {"loop": 0, "optimize": True, "disposal": 1}
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=durations, **kept)
    return buffer.getvalue()


def _palette(frames: Sequence[Image.Image]) -> Image.Image:
    """The style's colours, pure and as they fade, and those that the pictures have most of."""
    fixed = [_faded(colour, part) for colour in (POSITIVE, NEGATIVE, NEW) for part in (1, 0.8, 0.6, 0.4, 0.2)]
    fixed += [_faded(colour, 1) for colour in (INK, DEAD, "#ffffff")]
    chosen = frames[:: max(1, len(frames) // 4)]
    sheet = Image.new("RGB", (chosen[0].width, len(chosen) * chosen[0].height))
    for number, frame in enumerate(chosen):
        sheet.paste(frame, (0, number * frame.height))
    found = np.reshape(sheet.quantize(_COLOURS - len(fixed)).getpalette() or [], (-1, 3))
    # Pillow chooses among colours this near to each other as it likes, and white would become grey.
    apart = np.abs(found[:, None] - np.array(fixed)).max(axis=2).min(axis=1) > 8
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([fixed, found[apart]]).ravel().tolist())
    return palette


def _faded(colour: str, part: float) -> tuple[int, ...]:
    """A colour on white."""
    return tuple(round(255 + part * (value - 255)) for value in ImageColor.getrgb(colour)[:3])


def draw_frame(pyplot: Any, layer: Mapping[str, Any], before: State | None, state: State) -> Any:
    """The wiring of one state, with its title and keys.

    Args:
        before: the state that edges are new against; None: none are new.
    """
    figure, axes = pyplot.subplots(figsize=(6.4, 4.5), dpi=100)
    own = state.layers[layer["name"]]
    lines = edge_lines(layer, before.layers[layer["name"]] if before is not None else None, own)
    places = node_places(layer)
    for colour, (paths, opacity) in lines.items():
        width = 1.1 if colour == NEW else 0.8
        axes.add_collection(LineCollection(paths, colors=colour, linewidths=width, alpha=opacity))
    alive = np.concatenate([own.live, np.ones(len(places) - own.live.size, bool)])
    size = min(30, 2500 / max(np.unique(places[:, 0], return_counts=True)[1]))
    for which, colour in ((~alive, DEAD), (alive, INK)):
        axes.scatter(*places[which].T, s=size, c=colour, zorder=3, linewidths=0)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.02, 1.02))
    axes.axis("off")
    axes.set_title(_title(state, int(own.live.sum())), loc="left", family="monospace")
    figure.legend(handles=_keys(), loc="outside lower center", ncols=5, fontsize=8, handlelength=1.4)
    return figure


def edge_lines(
    layer: Mapping[str, Any], before: LayerState | None, state: LayerState
) -> dict[str, tuple[list[Array], Array]]:
    """Lines of the edges and how opaque they are, by colour.

    The more edges are weaker than one, the more opaque it is; edges that are new fade with their number.
    """
    codes, weights = drawn_edges(layer, state)
    known = drawn_edges(layer, before)[0] if before is not None else codes
    fresh = ~np.isin(codes, known)
    targets, sources = np.divmod(codes, num_nodes(layer))
    places, count = node_places(layer), max(codes.size, 1)
    rank = (1 + np.argsort(np.argsort(np.abs(weights), kind="stable"))) / count
    opacity = (0.1 + 0.8 * rank**2) * min(1.0, max(0.04, 1500 / count))
    opacity[fresh] = min(0.9, max(0.01, 300 / max(fresh.sum(), 1)))
    shown = {POSITIVE: ~fresh & (weights > 0), NEGATIVE: ~fresh & (weights <= 0), NEW: fresh}
    return {
        colour: (edge_paths(places[sources[which]], places[targets[which]]), opacity[which])
        for colour, which in shown.items()
        if which.any()
    }


def _title(state: State, live: int) -> str:
    accuracy = state.numbers.get("train_accuracy")
    told = "" if accuracy is None else f"   training {accuracy:5.1f} %"
    return f"step {int(state.numbers['step'])}   {live} live nodes{told}"


def _keys() -> list[Line2D]:
    lines = {"positive": POSITIVE, "negative": NEGATIVE, "new": NEW}
    dots = {"live node": INK, "dead node": DEAD}
    return [
        Line2D([], [], color=colour, marker="", linestyle="-", label=k) for k, colour in lines.items()
    ] + [Line2D([], [], color=colour, marker="o", linestyle="", label=k) for k, colour in dots.items()]


if __name__ == "__main__":
    sys.exit(main())
