"""The paper's demonstration: a small wiring is learned on handwritten digits and shown on a page.

    python -m fig.demo [--open] [OPTION ...]

Trains `apps/quickstart/wiring_demo.yml` (100 nodes, 300 edges), prints how nodes die while accuracy rises,
and writes the page. Other options are passed to the training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from fig import wiring_page
from fig.recorded_wiring import find_record, read_drawable
from fig.train_app import ROOT, train_app
from genutil.exit_codes import exit_status
from genutil.runs.wiring_record import Record
from wirings.markdown import markdown_table

APP = "apps/quickstart/wiring_demo.yml"
COLUMNS = ("step", "epoch", "live nodes", "training accuracy (steps)", "test accuracy")
_STEPS = (0, 10, 20, 30, 45, 90, 180, 360, 540)
"""Steps in the table; the last one of the training follows."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status of the training, or of the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--open", action="store_true", help="show the page in the browser")

    def run() -> int:
        options, training = parser.parse_known_args(argv)
        return _main(options.open, training)

    return exit_status(run)


def _main(open_page: bool, training: Sequence[str]) -> int:
    print(f"python runner.py app:{APP}", *training, flush=True)
    status, results = train_app(APP, training)
    if status:
        return status
    path = find_record(ROOT / results["folder"])
    print(f"\n{table(read_drawable(path))}\n")
    return wiring_page.main([str(path), *(["--open"] if open_page else [])])


def table(record: Record) -> str:
    """Live nodes and accuracies at selected steps of a training, as Markdown.

    Training accuracy is that of the batches since the previous state, so the range of steps follows it.
    """
    steps = [int(state.numbers["step"]) for state in record.states]
    rows = []
    for state, step, previous in zip(record.states, steps, [None, *steps[:-1]], strict=True):
        if step not in _STEPS and step != steps[-1]:
            continue
        live = np.concatenate([state.layers[layer["name"]].live for layer in record.layout])
        train, val = (
            f"{state.numbers[key]:.1f} %" if key in state.numbers else ""
            for key in ("train_accuracy", "val_accuracy")
        )
        if train and previous is not None:
            train += f" ({previous + 1}–{step})"
        rows.append((str(step), f"{state.numbers['epoch']:.2f}", f"{live.sum()} of {live.size}", train, val))
    return markdown_table(COLUMNS, rows)


if __name__ == "__main__":
    sys.exit(main())
