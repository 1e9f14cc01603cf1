"""Accuracy against multiply-accumulates, as published, and against those and the time that were measured.

    python -m fig.pareto [RUN ...] [--output FILE]

The published points are those on ImageNet. RUN is the folder of a training or an evaluation, or a folder of
such folders: its accuracy and MACs are drawn, and the time of an image where it was evaluated; of several
seeds, mean and standard deviation. Written: FILE.png and FILE.svg, `pareto` by default.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fig.finished import by_experiment, read_results
from fig.published import OTHERS, PUBLISHED
from fig.style import drawn, legend_outside, save
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
    parser.add_argument("--output", type=Path, default=Path("pareto"), help="without the ending")
    return exit_status(lambda: _main(parser.parse_args(argv)))


def _main(options: argparse.Namespace) -> int:
    results = read_results(options.runs, evaluations=True)
    with drawn() as pyplot:
        for file in save(draw(pyplot, results), options.output):
            print(file)
    return 0


def published_points() -> dict[str, list[tuple[float, float]]]:
    """(millions of MACs, top-1) on ImageNet, by family, as published."""
    points = {
        family: sorted(
            (row.macs, row.top1) for name, row in PUBLISHED.items() if name.startswith(start) and row.macs
        )
        for family, start in _FAMILIES.items()
    }
    return points | {family: list(pairs) for family, pairs in OTHERS.items()}


def draw(pyplot: Any, results: Sequence[dict[str, Any]]) -> Any:
    """The figure: published points, then a panel for what was measured of MACs, and one of time."""
    groups = by_experiment(results)
    counted = _with(groups, "macs")
    timed = _with(groups, "latency_ms")
    panels = 1 + bool(counted) + bool(timed)
    figure, axes = pyplot.subplots(1, panels, figsize=(7 * panels, 4.2), squeeze=False)
    axis, *others = axes[0]
    for family, points in published_points().items():
        axis.plot(*zip(*points, strict=True), label=family)
    axis.set(
        title="ImageNet, as published", xlabel="multiply-accumulates, millions", ylabel="top-1 accuracy, %"
    )
    legend_outside(axis)
    if counted:
        _measured(others.pop(0), counted, "macs", 1e-6, "multiply-accumulates, millions")
    if timed:
        _measured(others.pop(0), timed, "latency_ms", 1, "time of an image, ms")
    return figure


def _with(groups: Groups, key: str) -> Groups:
    """The experiments whose results tell `key`, without those that do not."""
    kept = {name: [result for result in group if key in result] for name, group in groups.items()}
    return {name: group for name, group in kept.items() if group}


def _measured(axis: Any, groups: Groups, key: str, scale: float, label: str) -> None:
    """A point for each experiment: the mean over its seeds, and the standard deviation around it."""
    for name, group in groups.items():
        across, across_std = mean_and_std([result[key] * scale for result in group])
        top, top_std = mean_and_std([result["top1_accuracy"] for result in group])
        engine = f", {group[0]['engine']}" if "engine" in group[0] else ""
        seeds = f" ({len(group)} seeds)" if len(group) > 1 else ""
        label_of = f"{name}{engine}{seeds}"
        axis.errorbar(across, top, top_std, across_std, linestyle="", capsize=2, elinewidth=1, label=label_of)
    axis.set(title="measured here", xlabel=label, ylabel="top-1 accuracy, %")
    legend_outside(axis, size=7)


if __name__ == "__main__":
    sys.exit(main())
