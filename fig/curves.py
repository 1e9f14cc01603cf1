"""Accuracy by epoch: for each experiment the mean over its seeds, with the standard deviation around it.

    python -m fig.curves RUN [RUN ...] [--phase val|train] [--output FILE]

RUN is the folder of a run, or a folder of such folders. Written: FILE.png and FILE.svg, `curves` by default.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fig.runs import by_experiment, read_results
from fig.style import drawn, save
from genutil.command import exit_status
from genutil.errors import UserError
from genutil.wiring_file import Array


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--phase", choices=("val", "train"), default="val")
    parser.add_argument("--output", type=Path, default=Path("curves"), help="without the ending")
    options = parser.parse_args(argv)
    return exit_status(lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    curves = read_curves(read_results(options.runs), options.phase)
    with drawn() as pyplot:
        for file in save(draw(pyplot, curves, options.phase), options.output):
            print(file)
    return 0


def read_curves(results: Sequence[dict[str, Any]], phase: str) -> dict[str, Array]:
    """Accuracies in per cent, (seeds, epochs), by the experiment's name.

    Raises:
        UserError: a run has no metrics, or seeds of an experiment are of different length.
    """
    found: dict[str, Array] = {}
    for (name, _), group in by_experiment(results).items():
        curves = [_curve(result, phase) for result in group]
        if len({len(curve) for curve in curves}) > 1:
            raise UserError(f"{name}: its seeds have different numbers of epochs; name runs of one length")
        if name in found:
            name = f"{name}, {len(curves[0])} epochs, lr {group[0]['config']['lr']}"
        found[name] = np.array(curves)
    return found


def _curve(result: Mapping[str, Any], phase: str) -> list[float]:
    path = Path(result["folder"]) / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [line["top1_accuracy"] for line in lines if line["phase"] == phase]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def draw(pyplot: Any, curves: Mapping[str, Array], phase: str) -> Any:
    """The figure."""
    figure, axis = pyplot.subplots(figsize=(7, 4.2))
    for name, values in curves.items():
        epochs, mean = np.arange(1, values.shape[1] + 1), values.mean(axis=0)
        seeds = f" ({len(values)} seeds)" if len(values) > 1 else ""
        (line,) = axis.plot(epochs, mean, label=f"{name}{seeds}", markersize=3)
        if len(values) > 1:
            spread = values.std(axis=0, ddof=1)
            axis.fill_between(
                epochs, mean - spread, mean + spread, color=line.get_color(), alpha=0.15, linewidth=0
            )
    what = "validation" if phase == "val" else "training"
    axis.set(xlabel="epoch", ylabel=f"{what} accuracy, %")
    axis.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    sys.exit(main())
