"""The paper's demonstration: a small wiring is learned on handwritten digits, and shown on a page.

    python -m fig.demo [--open] [OPTION ...]

Trains `apps/quickstart/wiring_demo.yml` (100 nodes, 300 edges), prints how nodes die while accuracy rises,
and makes the page. Other options are handed on to the training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fig import wiring_page
from fig.runs import ROOT, find_record, train
from genutil.tables import markdown_table
from genutil.wiring_file import Record, read_record

APP = "apps/quickstart/wiring_demo.yml"
COLUMNS = ("step", "epoch", "live nodes", "training accuracy", "test accuracy")
_SHOWN = (0, 10, 20, 30, 45, 90, 180, 360, 540)
"""Steps of the table, beside the last one."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status of the training, or of the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--open", action="store_true", help="show the page in the browser")
    options, training = parser.parse_known_args(argv)
    print(f"python runner.py app:{APP}", *training, flush=True)
    status, results = train(APP, training)
    if status:
        return status
    path = find_record(ROOT / results["folder"])
    print(f"\n{table(read_record(path))}\n")
    return wiring_page.main([str(path), *(["--open"] if options.open else [])])


def table(record: Record) -> str:
    """Some states of a training: live nodes and accuracies, as Markdown."""
    (layer,) = record.layout
    states = {int(state.numbers["step"]): state for state in record.states}
    rows = []
    for step in sorted({*_SHOWN, max(states)} & states.keys()):
        numbers, live = states[step].numbers, states[step].layers[layer["name"]].live
        told = (
            f"{numbers[key]:.1f} %" if key in numbers else "" for key in ("train_accuracy", "val_accuracy")
        )
        rows.append((str(step), f"{numbers['epoch']:.2f}", f"{live.sum()} of {live.size}", *told))
    return markdown_table(COLUMNS, rows)


if __name__ == "__main__":
    sys.exit(main())
