"""Accuracy by epoch: for each experiment the mean over its seeds, with the standard deviation around it.

    python -m fig.curves RUN [RUN ...] [--phase val|train] [--output FILE]

RUN is the folder of a run, or a folder of such folders. The parts of a training that was stopped and resumed
are joined. A run that cannot be read is skipped with a warning. Written: FILE.png and FILE.svg, by default
`curves`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fig.finished_runs import group_by_experiment, read_each, read_metrics, read_results
from fig.style import legend_outside, pyplot_in_style, save
from genutil.exceptions import UserError
from genutil.exit_codes import exit_status
from genutil.runs.wiring_record import Array
from genutil.spread import mean_and_std


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--phase", choices=("val", "train"), default="val")
    parser.add_argument("--output", type=Path, default=Path("curves"), help="without the suffix")
    return exit_status(lambda: _main(parser.parse_args(argv)))


def _main(options: argparse.Namespace) -> int:
    curves = read_curves(read_results(options.runs), options.phase)
    with pyplot_in_style() as pyplot:
        for file in save(draw(pyplot, curves, options.phase), options.output):
            print(file)
    return 0


_NAMES = {"top1_accuracy": "top-1 accuracy"}


class Curves(NamedTuple):
    """A metric of an experiment's epochs.

    Attributes:
        epochs: from 1, in ascending order.
        values: (seeds, epochs).
    """

    epochs: Array
    values: Array


def read_curves(
    results: Sequence[dict[str, Any]], phase: str, key: str = "top1_accuracy"
) -> dict[str, Curves]:
    """Curves by the experiment's name. A run whose metrics cannot be read is skipped with a warning.

    Args:
        results: of the runs.
        phase: `train` or `val`.
        key: of the metrics of an epoch.

    Raises:
        UserError: no run has metrics, or seeds of an experiment have different epochs.
    """
    pairs = read_each(results, lambda result: _curve(result, phase, key))
    curve_of = {result["folder"]: curve for result, curve in pairs}
    by_name: dict[str, Curves] = {}
    for name, group in group_by_experiment(result for result, _ in pairs).items():
        curves = [curve_of[result["folder"]] for result in group]
        epochs = sorted(curves[0])
        if any(sorted(curve) != epochs for curve in curves):
            raise UserError(
                f"{name}: its seeds have different numbers of epochs; name runs of one length, and keep the "
                "folders of stopped runs next to those that resumed them"
            )
        values = np.array([[curve[epoch] for epoch in epochs] for curve in curves])
        by_name[name] = Curves(np.array(epochs) + 1, values)
    return by_name


def _curve(result: Mapping[str, Any], phase: str, key: str) -> dict[int, float]:
    """The metric by epoch, from 0."""
    lines = [line for line in read_metrics(result) if line.get("phase") == phase]
    try:
        values = {line["epoch"]: float(line[key]) for line in lines}
    except (KeyError, TypeError, ValueError) as error:
        name = _NAMES.get(key, key)
        raise UserError(f"{result['folder']}: its metrics hold no {name}") from error
    if not values:
        raise UserError(f"{result['folder']}: its metrics hold no epoch of phase {phase}")
    return values


def draw(pyplot: Any, curves: Mapping[str, Curves], phase: str) -> Any:
    """The figure."""
    figure, axis = pyplot.subplots(figsize=(9, 4.2))
    draw_curves(axis, curves)
    kind = "validation" if phase == "val" else "training"
    axis.set(xlabel="epoch", ylabel=f"{kind} accuracy, %")
    legend_outside(axis)
    return figure


def draw_curves(axis: Any, curves: Mapping[str, Curves]) -> None:
    """Lines of the means over the seeds, with the standard deviations around them."""
    from matplotlib.ticker import MaxNLocator

    for name, (epochs, values) in curves.items():
        seeds = f" ({len(values)} seeds)" if len(values) > 1 else ""
        pairs = [mean_and_std(column.tolist()) for column in values.T]
        mean = np.array([pair[0] for pair in pairs])
        (line,) = axis.plot(epochs, mean, label=f"{name}{seeds}", markersize=4)
        if len(values) > 1:
            std = np.array([pair[1] for pair in pairs])
            axis.fill_between(epochs, mean - std, mean + std, color=line.get_color(), alpha=0.15, linewidth=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


if __name__ == "__main__":
    sys.exit(main())
