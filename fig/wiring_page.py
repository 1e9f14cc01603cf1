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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fig.drawing import drawn_columns, drawn_edges
from fig.runs import find_record
from genutil.atomic import write_atomically
from genutil.command import exit_status
from genutil.wiring_file import Array, LayerState, Record, State, read_record

_PARTS = Path(__file__).with_name("page")
_SCRIPTS = ("data.js", "scene.js", "charts.js", "panel.js")
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
    options = parser.parse_args(argv)
    return exit_status(lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    path = find_record(options.run)
    record = read_record(path)
    output: Path = options.output or path.with_name("wiring.html")
    page, shown = make_page(record, path.resolve().parent.name, options.states)
    write_atomically(output, lambda file: file.write(page))
    print(f"{output}: {shown} of {len(record.states)} states, {len(page) / 1e6:.1f} MB")
    if options.open:
        webbrowser.open(output.resolve().as_uri())
    return 0


def make_page(record: Record, title: str, most: int) -> tuple[bytes, int]:
    """The page, and how many states it shows: spread evenly over those recorded, first and last included.

    Args:
        record: of a run.
        title: above the picture.
        most: states.
    """
    count = min(len(record.states), max(most, 1))
    while True:
        places = np.unique(np.round(np.linspace(0, len(record.states) - 1, count)).astype(int))
        states = [record.states[place] for place in places]
        page = _page(record.layout, states, title)
        if len(page) <= _LARGEST or count < 2:
            return page, len(states)
        count = max(1, min(count - 1, int(count * 0.95 * _LARGEST / len(page))))


def _page(layout: Sequence[Mapping[str, Any]], states: Sequence[State], title: str) -> bytes:
    blob, told = bytearray(), []
    for state in states:
        counts, totals = [], []
        for layer in layout:
            edges = state.layers[layer["name"]]
            codes, weights = drawn_edges(layer, edges)
            counts.append(codes.size)
            totals.append(edges.places.size)
            blob += _packed(codes, weights, edges)
        told.append({"numbers": dict(state.numbers), "counts": counts, "totals": totals})
    head = {"title": title, "layers": [drawn_columns(layer) for layer in layout], "states": told}
    texts = {
        "STYLE": (_PARTS / "page.css").read_text(),
        "SCRIPT": "\n".join((_PARTS / name).read_text() for name in _SCRIPTS),
        "HEAD": json.dumps(head).replace("<", "\\u003c"),
        "BLOB": base64.b64encode(zlib.compress(bytes(blob), 9)).decode(),
    }
    page = (_PARTS / "page.html").read_text()
    for name, text in texts.items():
        before, mark, after = page.partition(f"\n{name}\n" if name in ("STYLE", "SCRIPT") else f">{name}<")
        page = before + mark.replace(name, text) + after
    return page.replace("TITLE", _escaped(title), 1).encode()


def _packed(codes: Array, weights: Array, state: LayerState) -> bytes:
    """As data.js reads them: gaps byte by byte, strengths from −127 to 127, live bits."""
    gaps = np.diff(codes, prepend=-1).astype("<u4")
    planes = gaps.view(np.uint8).reshape(-1, 4).T
    largest = np.abs(weights).max(initial=0) or 1.0
    strengths = np.sign(weights) * np.ceil(127 * np.abs(weights) / largest)
    return planes.tobytes() + strengths.astype(np.int8).tobytes() + np.packbits(state.live).tobytes()


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main())
