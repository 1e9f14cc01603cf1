"""A recorded wiring as one HTML file that needs nothing else: nodes, edges, a slider over the steps.

    python -m fig.wiring_page RUN [--output FILE] [--states N] [--open]

RUN is the folder of a run that was trained with `--record_wiring`, or its `wiring.npz`.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import webbrowser
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fig.drawing import (
    BULGE,
    drawn_columns,
    drawn_edges,
    node_places,
    num_nodes,
    output_nodes,
    read_drawable,
)
from fig.files import write_file
from fig.runs import find_record
from genutil.exit_codes import exit_status
from genutil.runs.wiring_record import Array, Record, State

_PARTS = Path(__file__).with_name("page")
_SCRIPTS = ("data.js", "scene.js", "matrix.js", "charts.js", "controls.js", "panel.js")
_LARGEST = 14_000_000
"""Bytes of a page; where there would be more, fewer states are shown."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run, or its wiring.npz")
    parser.add_argument("--output", type=Path, help="the page; by default wiring.html beside the record")
    parser.add_argument("--states", type=int, default=160, help="show so many states at the most")
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    return exit_status(lambda: _main(parser.parse_args(argv)))


def _main(options: argparse.Namespace) -> int:
    path = find_record(options.run)
    record = read_drawable(path)
    output: Path = options.output or path.with_name("wiring.html")
    page, shown = make_page(record, path.resolve().parent.name, options.states)
    write_file(output, lambda file: file.write(page))
    print(f"{output}: {shown} of {len(record.states)} states, {len(page) / 1e6:.1f} MB")
    if options.open:
        webbrowser.open(output.resolve().as_uri())
    return 0


def make_page(record: Record, title: str, most: int) -> tuple[bytes, int]:
    """The page, and how many states it shows; its curves tell the accuracies of all of them.

    Args:
        record: of a run, with at least one state.
        title: above the picture.
        most: states.
    """
    count = min(len(record.states), max(most, 1))
    while True:
        chosen = choose_states(record.states, count)
        page = _page(record, chosen, title)
        if len(page) <= _LARGEST or count < 2:
            return page, len(chosen)
        count = max(1, min(count - 1, int(count * 0.95 * _LARGEST / len(page))))


def choose_states(states: Sequence[State], count: int) -> list[int]:
    """Places of up to `count` states: first, last, ends of epochs, and then others, spread evenly.

    Only at the end of an epoch a state tells of a validation.
    """
    last = len(states) - 1
    ends = {number for number, state in enumerate(states) if float(state.numbers["epoch"]).is_integer()}
    ends |= {0, last}
    if len(ends) >= count:
        return sorted(_spread(sorted(ends), count))
    return sorted(ends | _spread(sorted(set(range(last + 1)) - ends), count - len(ends)))


def _spread(places: Sequence[int], count: int) -> set[int]:
    """`count` of them, or all; first and last included where there are two."""
    if count < 2:
        return set(places[len(places) - count :]) if count else set()
    chosen = np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int)
    return {places[number] for number in chosen}


def _page(record: Record, chosen: Sequence[int], title: str) -> bytes:
    head, blob = _head(record, title), bytearray()
    before = [np.empty(0, np.int64) for _ in record.layout]
    for place in chosen:
        state, told = record.states[place], []
        for number, layer in enumerate(record.layout):
            edges = state.layers[layer["name"]]
            codes, weights = drawn_edges(layer, edges)
            came, went = _change(before[number], codes)
            counts = {"edges": codes.size, "total": edges.places.size, "came": came.size, "went": went.size}
            told.append(counts)
            blob += _gaps(came) + _gaps(went) + _packed(weights, edges.live)
            before[number] = codes
        since = (
            record.states[place - 1].numbers["step"] if "train_accuracy" in state.numbers and place else None
        )
        head["states"].append({"numbers": dict(state.numbers), "since": since, "layers": told})
    texts = {
        "STYLE": (_PARTS / "page.css").read_text(),
        "SCRIPT": "\n".join((_PARTS / name).read_text() for name in _SCRIPTS),
        "HEAD": json.dumps(head).replace("<", "\\u003c"),
        "BLOB": base64.b64encode(zlib.compress(bytes(blob), 9)).decode(),
    }
    page = (_PARTS / "page.html").read_text()
    for name, text in texts.items():
        before_it, mark, after = page.partition(f"\n{name}\n" if name in ("STYLE", "SCRIPT") else f">{name}<")
        page = before_it + mark.replace(name, text) + after
    return page.replace("TITLE", _escaped(title), 1).encode()


def _head(record: Record, title: str) -> dict[str, Any]:
    """What the page knows beside the states that it shows."""
    layers = []
    for layer in record.layout:
        x, y = node_places(layer).round(4).T.tolist()
        nodes = {"nodes": num_nodes(layer), "columns": drawn_columns(layer), "x": x, "y": y}
        kind = {"acyclic": layer["acyclic"], "outputs": output_nodes(layer)}
        layers.append({"name": layer["name"], "sources": layer["sources"], **kind, **nodes})
    numbers = [state.numbers for state in record.states]
    accuracies = {kind: [told.get(f"{kind}_accuracy") for told in numbers] for kind in ("train", "val")}
    recorded = {"steps": [told["step"] for told in numbers], **accuracies}
    return {"title": title, "bulge": BULGE, "layers": layers, "recorded": recorded, "states": []}


def _change(before: Array, codes: Array) -> tuple[Array, Array]:
    """Numbers of the edges that came, and places among the earlier ones of those that went."""
    return np.setdiff1d(codes, before, assume_unique=True), np.flatnonzero(~np.isin(before, codes))


def _gaps(rising: Array) -> bytes:
    """Distances between the numbers, the first to −1, byte by byte: all lowest bytes, then all next ones."""
    gaps = np.diff(rising, prepend=-1).astype("<u4")
    return gaps.view(np.uint8).reshape(-1, 4).T.tobytes()


def _packed(weights: Array, live: Array) -> bytes:
    """The 16 bits that the record has of each weight, byte by byte, and the live nodes' bits."""
    halves = weights.astype("<f2").view(np.uint8).reshape(-1, 2).T
    return halves.tobytes() + np.packbits(live).tobytes()


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main())
