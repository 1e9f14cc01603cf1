"""A recorded wiring as a self-contained HTML page: nodes, edges, a slider over the steps.

    python -m fig.wiring_page RUN [--output FILE] [--states N] [--open]

RUN is the folder of a run that was trained with `--record_wiring`, or of its record (`wiring/`); or the
experiment's name in place of the folder's name, for its last recorded run.
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
    node_positions,
    num_nodes,
    output_nodes,
)
from fig.output_files import write_file
from fig.recorded_wiring import find_record, read_drawable
from genutil.exit_codes import exit_status
from genutil.runs.wiring_record import Array, Record, State

_TEMPLATES = Path(__file__).with_name("page")
_SCRIPTS = ("data.js", "scene.js", "matrix.js", "charts.js", "controls.js", "panel.js")
_MAX_BYTES = 14_000_000
"""Size of a page; states are left out until it fits."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run, or of its record")
    parser.add_argument(
        "--output", type=Path, help="the page; by default wiring.html in the folder of the run"
    )
    parser.add_argument("--states", type=int, default=160, help="maximum number of states")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    return exit_status(lambda: _main(parser.parse_args(argv)))


def _main(options: argparse.Namespace) -> int:
    path = find_record(options.run)
    record = read_drawable(path)
    output: Path = options.output or path.with_name("wiring.html")
    page, num_shown = make_page(record, path.resolve().parent.name, options.states)
    write_file(output, lambda file: file.write(page))
    print(f"{output}: {num_shown} of {len(record.states)} states, {len(page) / 1e6:.1f} MB")
    if options.open:
        webbrowser.open(output.resolve().as_uri())
    return 0


def make_page(record: Record, title: str, max_states: int) -> tuple[bytes, int]:
    """The page, and the number of states it shows; its curves have the accuracies of all states.

    Args:
        record: of a run, with at least one state.
        title: above the picture.
        max_states: maximum number of states.
    """
    count = min(len(record.states), max(max_states, 1))
    while True:
        indices = select_states(record.states, count)
        page = _page(record, indices, title)
        if len(page) <= _MAX_BYTES or count < 2:
            return page, len(indices)
        count = max(1, min(count - 1, int(count * 0.95 * _MAX_BYTES / len(page))))


def select_states(states: Sequence[State], count: int) -> list[int]:
    """Indices of up to `count` states: first, last, ends of epochs, and then others, evenly spaced.

    Only states at the end of an epoch have a validation accuracy.
    """
    last = len(states) - 1
    ends = {index for index, state in enumerate(states) if float(state.numbers["epoch"]).is_integer()}
    ends |= {0, last}
    if len(ends) >= count:
        return sorted(_evenly_spaced(sorted(ends), count))
    others = sorted(set(range(last + 1)) - ends)
    return sorted(ends | _evenly_spaced(others, count - len(ends)))


def _evenly_spaced(indices: Sequence[int], count: int) -> set[int]:
    """`count` of the indices, or all; with the first and the last if there are two."""
    if count < 2:
        return set(indices[len(indices) - count :]) if count else set()
    selected = np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)
    return {indices[number] for number in selected}


def _page(record: Record, indices: Sequence[int], title: str) -> bytes:
    head, blob = _head(record, title), bytearray()
    before = [np.empty(0, np.int64) for _ in record.layout]
    for index in indices:
        state, counts = record.states[index], []
        for number, layer in enumerate(record.layout):
            layer_state = state.layers[layer["name"]]
            codes, weights = drawn_edges(layer, layer_state)
            added, removed = _change(before[number], codes)
            total = layer_state.edge_indices.size
            counts.append({"edges": codes.size, "total": total, "added": added.size, "removed": removed.size})
            blob += _deltas(added) + _deltas(removed) + _packed(weights, layer_state.live)
            before[number] = codes
        has_accuracy = "train_accuracy" in state.numbers and index
        since = record.states[index - 1].numbers["step"] if has_accuracy else None
        head["states"].append({"numbers": dict(state.numbers), "since": since, "layers": counts})
    texts = {
        "STYLE": (_TEMPLATES / "page.css").read_text(),
        "SCRIPT": "\n".join((_TEMPLATES / name).read_text() for name in _SCRIPTS),
        "HEAD": json.dumps(head).replace("<", "\\u003c"),
        "BLOB": base64.b64encode(zlib.compress(bytes(blob), 9)).decode(),
    }
    page = (_TEMPLATES / "page.html").read_text()
    for name, text in texts.items():
        mark = f"\n{name}\n" if name in ("STYLE", "SCRIPT") else f">{name}<"
        page = page.replace(mark, mark.replace(name, text), 1)
    return page.replace("TITLE", _escaped(title), 1).encode()


def _head(record: Record, title: str) -> dict[str, Any]:
    """The page's data without the states: layers, and steps and accuracies of all states."""
    layers = []
    for layer in record.layout:
        x, y = node_positions(layer).round(4).T.tolist()
        nodes = {"nodes": num_nodes(layer), "columns": drawn_columns(layer), "x": x, "y": y}
        kind = {"acyclic": layer["acyclic"], "outputs": output_nodes(layer)}
        layers.append({"name": layer["name"], "sources": layer["sources"], **kind, **nodes})
    numbers = [state.numbers for state in record.states]
    accuracies = {kind: [n.get(f"{kind}_accuracy") for n in numbers] for kind in ("train", "val")}
    recorded = {"steps": [n["step"] for n in numbers], **accuracies}
    return {"title": title, "bulge": BULGE, "layers": layers, "recorded": recorded, "states": []}


def _change(before: Array, codes: Array) -> tuple[Array, Array]:
    """Codes of the added edges, and indices of the removed ones among the edges before."""
    return np.setdiff1d(codes, before, assume_unique=True), np.flatnonzero(~np.isin(before, codes))


def _deltas(ascending: Array) -> bytes:
    """Differences of the numbers, the first to −1, byte by byte: all lowest bytes, then all next ones."""
    deltas = np.diff(ascending, prepend=-1).astype("<u4")
    return deltas.view(np.uint8).reshape(-1, 4).T.tobytes()


def _packed(weights: Array, live: Array) -> bytes:
    """The 16 bits that the record has of each weight, byte by byte, and the live nodes' bits."""
    halves = weights.astype("<f2").view(np.uint8).reshape(-1, 2).T
    return halves.tobytes() + np.packbits(live).tobytes()


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main())
