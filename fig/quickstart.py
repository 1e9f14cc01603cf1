"""Trains two wirings on handwritten digits, one discovered and one random, and prints their results.

    python -m fig.quickstart            # as `make quickstart` does
    python -m fig.quickstart --num_epochs 2

Options are passed to both runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from fig.train_app import ROOT, train_app
from genutil.exceptions import UserError
from genutil.exit_codes import exit_status
from wirings.markdown import markdown_table

APPS = (
    ("random graph, fixed", "apps/quickstart/digits_random_graph.yml"),
    ("DNW, discovered", "apps/quickstart/digits_dnw.yml"),
)
COLUMNS = ("wiring", "test accuracy", "edges in use", "parameters in use", "time")
_NUMBERS = ("top1_accuracy", "edges", "params", "wall_time")
NOTE = (
    "One run of few epochs: the difference between the two lines is smaller than between seeds.\n"
    "The published gain of a discovered wiring (76.1 to 80.9 % on CIFAR-10) came after 160 epochs."
)


def main(options: Sequence[str]) -> int:
    """Run both experiments and print the table. Returns the exit status of the first run that fails, 2 if the
    options leave nothing to compare, or 0.
    """
    return exit_status(lambda: _main(options))


def _main(options: Sequence[str]) -> int:
    rows = []
    for label, app in APPS:
        print(f"{label}: python runner.py app:{app}", *options, flush=True)
        status, results = train_app(app, options)
        if status:
            return status
        rows.append((label, results))
    print(f"\n{table(rows)}\n\n{NOTE}\n\nFiles of the runs:")
    for _, results in rows:
        print(f"  {ROOT / results['folder']}")
    return 0


def table(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """One line a wiring, as Markdown.

    Raises:
        UserError: a run lacks one of the numbers.
    """
    missing = {key for _, results in rows for key in _NUMBERS if key not in results}
    if missing:
        keys = ", ".join(sorted(missing))
        raise UserError(f"the results of the runs lack {keys}; remove the option that leaves it out")
    cells = [
        (
            label,
            f"{results['top1_accuracy']:.2f} %",
            f"{results['edges']:,}",
            f"{results['params']:,}",
            f"{results['wall_time']:.0f} s",
        )
        for label, results in rows
    ]
    return markdown_table(COLUMNS, cells)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
