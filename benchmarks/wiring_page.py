"""The page of a wiring with 32,000 edges: its size, and its load and drawing times in headless Chromium.

    python -m benchmarks.wiring_page [--edges N] [--states N] [--rounds N] [--threads N] [--json FILE]

The record is synthetic: edges of the static graph of 800 nodes, of which fewer and fewer are exchanged from
state to state. Without a browser only the size is measured.
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
_DRAW_STATES = """n => { const { panel } = window; const times = [];
for (let i = 0; i < n; i++) { const start = performance.now(); panel.show((i * 7) % panel.states.length);
panel.scene.pen.getImageData(0, 0, 1, 1); times.push(performance.now() - start); } return times; }"""


def make_record(edges: int, states: int) -> Record:
    """A synthetic training of the static graph of 800 nodes."""
    model = build_model(load_config(APP))
    assert isinstance(model, StaticNeuralGraph)
    readable = model.stage().readable_mask().flatten().nonzero().flatten().numpy()
    random = np.random.default_rng(0)
    initial = random.choice(readable, edges, replace=False)
    weights = dict(zip(initial.tolist(), random.standard_normal(edges), strict=True))
    listed = []
    for number in range(states):
        num_removed = int(edges * 0.05 / (1 + number))
        for index in random.choice(list(weights), num_removed, replace=False).tolist():
            del weights[index]
        while len(weights) < edges:
            weights[int(random.choice(readable))] = 0.1
        indices = np.array(sorted(weights))
        values = np.array([weights[index] for index in indices.tolist()])
        live = np.zeros(model.dim, bool)
        live[indices % model.dim] = True
        noise = 1 + 0.1 * random.standard_normal(edges)
        layer = LayerState(indices, (values * noise).astype(np.float32), live)
        numbers = {"step": 98 * number, "epoch": number, "train_accuracy": 80.0, "val_accuracy": 75.0}
        listed.append(State(numbers, {"graph": layer}))
    return Record(wiring_layout(model), listed)


def measure_page(options: argparse.Namespace) -> Report:
    page, num_shown = make_page(make_record(options.edges, options.states), "benchmark", options.states)
    report = Report(
        f"The page of a wiring with {options.edges:,} edges",
        ("what", "measured"),
        notes=[f"{num_shown} of {options.states} states; rounds: {options.rounds}, medians (low to high)"],
    )
    report.add(("size", f"{len(page) / 1e6:.1f} MB"), what="size", bytes=len(page))
    if CHROMIUM is None:
        report.notes.append("no browser is installed: only the size was measured")
        return report
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wiring.html"
        path.write_bytes(page)
        rounds = list(_rounds(path, options.rounds))
    for name in rounds[0]:
        seconds = [second for times in rounds for second in times[name]]
        low, middle, high = (1000 * f(seconds) for f in (min, statistics.median, max))
        report.add((name, f"{middle:.0f} ms ({low:.0f} to {high:.0f})"), what=name, seconds=middle / 1000)
    return report


def _rounds(path: Path, rounds: int) -> Iterator[dict[str, list[float]]]:
    """Per round: seconds until the page is interactive, and of drawing 30 states in each view."""
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
            times = {"until it is interactive": [time.perf_counter() - started]}
            for name, change in views.items():
                tab.evaluate(change)
                times[name] = [ms / 1000 for ms in tab.evaluate(_DRAW_STATES, 30)]
            yield times


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, default=32_000)
    parser.add_argument("--states", type=int, default=168)
    parser.add_argument("--rounds", type=int, default=5)
    run(measure_page, parser)
