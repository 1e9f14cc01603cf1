"""Accuracy by multiply-accumulates, as published and as measured, of inference and training, and by time.

    python -m fig.pareto [RUN ...] [--output FILE]

The published points are those on ImageNet. RUN is the folder of a training or an evaluation, or a folder of
such folders: its accuracy is drawn by its MACs, by those of its training, and by the time of an image where
it was evaluated; of several seeds, mean and standard deviation. Written: FILE.png and FILE.svg, by default
`pareto`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fig.finished_runs import group_by_experiment, read_results
from fig.paper_results import OTHERS, PUBLISHED
from fig.style import legend_outside, pyplot_in_style, save
from genutil.exit_codes import exit_status
from genutil.spread import mean_and_std

Groups = Mapping[str, Sequence[Mapping[str, Any]]]

_FAMILIES = {
    "DNW": "mobilenetv1_dnw_x",
    "DNW, wired classifier": "mobilenetv1_dnw_small",
    "random graph": "mobilenetv1_random",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN")
    parser.add_argument("--output", type=Path, default=Path("pareto"), help="without the suffix")
    return exit_status(lambda: _main(parser.parse_args(argv)))


def _main(options: argparse.Namespace) -> int:
    results = read_results(options.runs, evaluations=True)
    with pyplot_in_style() as pyplot:
        for file in save(draw(pyplot, results), options.output):
            print(file)
    return 0


def published_points() -> dict[str, list[tuple[float, float]]]:
    """(millions of MACs, top-1) on ImageNet, by family, as published."""
    points = {
        family: sorted(
            (row.macs, row.top1) for name, row in PUBLISHED.items() if name.startswith(prefix) and row.macs
        )
        for family, prefix in _FAMILIES.items()
    }
    return points | {family: list(pairs) for family, pairs in OTHERS.items()}


def draw(pyplot: Any, results: Sequence[dict[str, Any]]) -> Any:
    """The figure: a panel of published points, and panels of what was measured, if any."""
    figure, (axis, *measured_axes) = _figure_with_panels(pyplot, results, first=1)
    for family, points in published_points().items():
        axis.plot(*zip(*points, strict=True), label=family)
    axis.set(
        title="ImageNet, as published", xlabel="multiply-accumulates, millions", ylabel="top-1 accuracy, %"
    )
    legend_outside(axis)
    _draw_panels(measured_axes, results)
    return figure


def draw_measured(pyplot: Any, results: Sequence[dict[str, Any]]) -> Any:
    """The figure without the published points.

    Args:
        results: at least one has a key of a panel.
    """
    figure, axes = _figure_with_panels(pyplot, results, first=0)
    _draw_panels(axes, results)
    return figure


_PANELS = (
    ("macs", 1e-6, "multiply-accumulates, millions"),
    ("training_macs", 1e-12, "multiply-accumulates of the training, 10¹²"),
    ("latency_ms", 1, "time of an image, ms"),
)
"""Key of the results, scale and label of each panel of what was measured."""


_NUM_STYLES = 20
"""Number of colours and markers in the style of the pictures."""


def _figure_with_panels(pyplot: Any, results: Sequence[dict[str, Any]], first: int) -> Any:
    """A figure with a panel for each key of _PANELS that results have, after `first` others; its axes."""
    panels = first + sum(any(key in result for result in results) for key, _, _ in _PANELS)
    figure, axes = pyplot.subplots(1, panels, figsize=(7 * panels, 4.2), squeeze=False)
    return figure, list(axes[0])


def _draw_panels(axes: Sequence[Any], results: Sequence[dict[str, Any]]) -> None:
    groups, axes = group_by_experiment(results), list(axes)
    for key, scale, label in _PANELS:
        if with_key := _with_key(groups, key):
            _draw_measured(axes.pop(0), with_key, key, scale, label)


def _with_key(groups: Groups, key: str) -> Groups:
    """The results that have `key`, by experiment."""
    filtered = {name: [result for result in group if key in result] for name, group in groups.items()}
    return {name: group for name, group in filtered.items() if group}


def _draw_measured(axis: Any, groups: Groups, key: str, scale: float, xlabel: str) -> None:
    """A point per experiment: mean over its seeds, with the standard deviation as error bars."""
    for number, (name, group) in enumerate(groups.items()):
        cost, cost_std = mean_and_std([result[key] * scale for result in group])
        top1, top1_std = mean_and_std([result["top1_accuracy"] for result in group])
        engine = f", {group[0]['engine']}" if "engine" in group[0] else ""
        seeds = f" ({len(group)} seeds)" if len(group) > 1 else ""
        label = f"{name}{engine}{seeds}"
        # Of more than 20, the others have the same markers, without a filling.
        style = {} if number < _NUM_STYLES else {"markerfacecolor": "none", "markeredgewidth": 1.5}
        axis.errorbar(
            cost, top1, top1_std, cost_std, linestyle="", capsize=2, elinewidth=1, label=label, **style
        )
    axis.set(title="measured here", xlabel=xlabel, ylabel="top-1 accuracy, %")
    legend_outside(axis, size=7)


if __name__ == "__main__":
    sys.exit(main())
