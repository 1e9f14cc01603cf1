"""Churn of each rule: the edges in use after an epoch that were not in use an epoch before.

    python -m fig.churn RUN [RUN ...] [--output DIR]

RUN is the folder of a run, or a folder of such folders. Written: `DIR/churn_<rule>.png` and `.svg` for each
rule; of several seeds, the mean and the standard deviation. DIR is `churn` by default.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fig.curves import Curves, draw_curves, read_curves
from fig.finished_runs import read_results
from fig.style import pyplot_in_style, save
from genutil.exit_codes import exit_status
from genutil.experiment_name import folder_name


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--output", type=Path, default=Path("churn"), help="folder of the pictures")
    return exit_status(lambda: _main(parser.parse_args(argv)))


def _main(options: argparse.Namespace) -> int:
    by_rule: dict[str, list[dict[str, Any]]] = {}
    for result in read_results(options.runs):
        by_rule.setdefault(str(result["config"]["graph"]), []).append(result)
    with pyplot_in_style() as pyplot:
        for rule, results in by_rule.items():
            curves = read_curves(results, "train", "edge_churn")
            path = options.output / f"churn_{folder_name(rule)}"
            figure = draw(pyplot, curves)
            for file in save(figure, path):
                print(file)
            pyplot.close(figure)
    return 0


def draw(pyplot: Any, curves: Mapping[str, Curves]) -> Any:
    """The figure of one rule."""
    figure, axis = pyplot.subplots(figsize=(4.5, 2.2))
    draw_curves(axis, curves)
    axis.set(xlabel="epoch", ylabel="new edges, %")
    axis.set_ylim(bottom=0)
    if len(curves) > 1:
        axis.legend(fontsize=7)
    return figure


if __name__ == "__main__":
    sys.exit(main())
