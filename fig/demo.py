"""The paper's demonstration: a small wiring is learned on handwritten digits, and shown on a page.

    python -m fig.demo [--open] [OPTION ...]

Trains `apps/quickstart/wiring_demo.yml` (100 nodes, 300 edges), prints how nodes die while accuracy rises,
and makes the page. Other options are handed on to the training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from fig import wiring_page
from fig.drawing import read_drawable
from fig.runs import ROOT, find_record, train
from genutil.exit_codes import exit_status
from genutil.runs.wiring_record import Record
from wirings.tables import markdown_table

APP = "apps/quickstart/wiring_demo.yml"
COLUMNS = ("step", "epoch", "live nodes", "training accuracy (steps)", "test accuracy")
_SHOWN = (0, 10, 20, 30, 45, 90, 180, 360, 540)
"""Steps of the table, beside the last one."""


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


def _main(show: bool, training: Sequence[str]) -> int:
    print(f"python runner.py app:{APP}", *training, flush=True)
    status, results = train(APP, training)
    if status:
        return status
    path = find_record(ROOT / results["folder"])
    print(f"\n{table(read_drawable(path))}\n")
    return wiring_page.main([str(path), *(["--open"] if show else [])])


def table(record: Record) -> str:
    """Some states of a training: live nodes and accuracies, as Markdown.

    Training accuracy is that of the batches since the recorded state before, so these steps are told with it.
    """
    numbers = [state.numbers for state in record.states]
    before = [None, *(int(told["step"]) for told in numbers[:-1])]
    last, rows = int(numbers[-1]["step"]), []
    for state, told, earlier in zip(record.states, numbers, before, strict=True):
        step = int(told["step"])
        if step not in _SHOWN and step != last:
            continue
        live = np.concatenate([state.layers[layer["name"]].live for layer in record.layout])
        train, val = (
            f"{told[key]:.1f} %" if key in told else "" for key in ("train_accuracy", "val_accuracy")
        )
        covered = f" ({earlier + 1}–{step})" if train and earlier is not None else ""
        rows.append((str(step), f"{told['epoch']:.2f}", f"{live.sum()} of {live.size}", train + covered, val))
    return markdown_table(COLUMNS, rows)


if __name__ == "__main__":
    sys.exit(main())
