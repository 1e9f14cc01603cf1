"""Trains two wirings on handwritten digits, one discovered and one random, and prints what was measured.

    python -m fig.quickstart            # as `make quickstart` does
    python -m fig.quickstart --num_epochs 2

Options are handed on to both runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genutil.tables import markdown_table

ROOT = Path(__file__).resolve().parent.parent
APPS = (
    ("random graph, fixed", "apps/quickstart/digits_random_graph.yml"),
    ("DNW, discovered", "apps/quickstart/digits_dnw.yml"),
)
COLUMNS = ("wiring", "test accuracy", "edges in use", "parameters in use", "time")
NOTE = (
    "One run of few epochs: the difference between the two lines is within what another seed changes.\n"
    "The published gain of a discovered wiring (76.1 to 80.9 % on CIFAR-10) came after 160 epochs."
)


def main(options: Sequence[str]) -> int:
    """Run both experiments and print the table. Returns the exit status of the first run that fails, or 0."""
    rows = []
    for label, app in APPS:
        print(f"{label}: python runner.py app:{app}", *options, flush=True)
        done = subprocess.run(
            [sys.executable, "runner.py", f"app:{app}", *options], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        if done.returncode:
            return done.returncode
        rows.append((label, read_results(done.stdout)))
    print(f"\n{table(rows)}\n\n{NOTE}\n\nFiles of the runs:")
    for _, results in rows:
        print(f"  {ROOT / results['folder']}")
    return 0


def read_results(printed: str) -> dict[str, Any]:
    """The `results.json` of a run, from what its command printed last."""
    folder = printed.rstrip().rsplit(" ", 1)[-1]
    results: dict[str, Any] = json.loads((ROOT / folder / "results.json").read_text())
    return results


def table(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """One line a wiring, as Markdown."""
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
