"""The page of a wiring with 32,000 edges: its size, and in headless Chromium how soon and how fast it moves.

    python -m benchmarks.wiring_page [--edges N] [--states N] [--rounds N] [--threads N] [--json FILE]

The record is made up: edges of the static graph of 800 nodes, of which fewer and fewer are swapped from state
to state. Without a browser only the size is measured.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.browser import CHROMIUM, new_tab
from benchmarks.report import Report, run
from fig.wiring_page import make_page
from genutil.config import load_config
from genutil.runs.wiring_record import LayerState, Record, State
from models import build_model
from models.graphs.neuralgraph import StaticNeuralGraph
from models.wiring_state import wiring_layout

APP = "apps/small_scale/static_dnw.yml"
_MOVE = """n => { const { panel } = window; const times = [];
for (let i = 0; i < n; i++) { const start = performance.now(); panel.show((i * 7) % panel.states.length);
panel.scene.pen.getImageData(0, 0, 1, 1); times.push(performance.now() - start); } return times; }"""


def make_record(edges: int, states: int) -> Record:
    """A made-up training of the static graph of 800 nodes."""
    model = build_model(load_config(APP))
    assert isinstance(model, StaticNeuralGraph)
    readable = model.stage().readable().flatten().nonzero().flatten().numpy()
    random = np.random.default_rng(0)
    kept = random.choice(readable, edges, replace=False)
    weights = dict(zip(kept.tolist(), random.standard_normal(edges), strict=True))
    told = []
    for number in range(states):
        swapped = int(edges * 0.05 / (1 + number))
        for place in random.choice(list(weights), swapped, replace=False).tolist():
            del weights[place]
        while len(weights) < edges:
            weights[int(random.choice(readable))] = 0.1
        places = np.array(sorted(weights))
        values = np.array([weights[place] for place in places.tolist()])
        live = np.zeros(model.dim, bool)
        live[places % model.dim] = True
        noise = 1 + 0.1 * random.standard_normal(edges)
        layer = LayerState(places, (values * noise).astype(np.float32), live)
        numbers = {"step": 98 * number, "epoch": number, "train_accuracy": 80.0, "val_accuracy": 75.0}
        told.append(State(numbers, {"graph": layer}))
    return Record(wiring_layout(model), told)


def measure_page(options: argparse.Namespace) -> Report:
    page, shown = make_page(make_record(options.edges, options.states), "benchmark", options.states)
    report = Report(
        f"The page of a wiring with {options.edges:,} edges",
        ("what", "measured"),
        notes=[f"{shown} of {options.states} states; rounds: {options.rounds}, medians (low to high)"],
    )
    report.add(("size", f"{len(page) / 1e6:.1f} MB"), what="size", bytes=len(page))
    if CHROMIUM is None:
        report.notes.append("no browser here: only the size was measured")
        return report
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wiring.html"
        path.write_bytes(page)
        rounds = list(_rounds(path, options.rounds))
    for name in rounds[0]:
        seconds = [second for measured in rounds for second in measured[name]]
        low, middle, high = (1000 * f(seconds) for f in (min, statistics.median, max))
        report.add((name, f"{middle:.0f} ms ({low:.0f} to {high:.0f})"), what=name, seconds=middle / 1000)
    return report


def _rounds(path: Path, rounds: int) -> Iterator[dict[str, list[float]]]:
    """Of each round: seconds until the page is interactive, and of 30 states in each view."""
    views = {
        "a state": "0",  # as the page opens
        "a state with all edges": "panel.limit(Infinity)",
        "a state as a matrix": "panel.toggleMatrix()",
    }
    for _ in range(rounds):
        with new_tab() as tab:
            started = time.perf_counter()
            tab.goto(path.as_uri())
            tab.wait_for_function("window.panel !== undefined")
            measured = {"until it is interactive": [time.perf_counter() - started]}
            for name, change in views.items():
                tab.evaluate(change)
                measured[name] = [ms / 1000 for ms in tab.evaluate(_MOVE, 30)]
            yield measured


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, default=32_000)
    parser.add_argument("--states", type=int, default=168)
    parser.add_argument("--rounds", type=int, default=5)
    run(measure_page, parser)
