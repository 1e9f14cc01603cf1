"""Accuracy against multiply-accumulates, as published, and against those and the time that were measured.

    python -m fig.pareto [RUN ...] [--output FILE]

The published points are those on ImageNet. RUN is the folder of a training or an evaluation, or a folder of
such folders: its accuracy and MACs are drawn, and the time of an image where it was evaluated. Written:
FILE.png and FILE.svg, `pareto` by default.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fig.published import OTHERS, PUBLISHED
from fig.runs import read_results
from fig.style import drawn, save
from genutil.command import exit_status

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
    options = parser.parse_args(argv)
    return exit_status(lambda: _main(options))


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
    counted = [result for result in results if "macs" in result]
    timed = [result for result in results if "latency_ms" in result]
    panels = 1 + bool(counted) + bool(timed)
    figure, axes = pyplot.subplots(1, panels, figsize=(1 + 5 * panels, 4.2), squeeze=False)
    axis, *others = axes[0]
    for family, points in published_points().items():
        axis.plot(*zip(*points, strict=True), label=family)
    axis.set(
        title="ImageNet, as published", xlabel="multiply-accumulates, millions", ylabel="top-1 accuracy, %"
    )
    axis.legend(fontsize=8)
    if counted:
        _measured(
            others.pop(0), counted, lambda result: result["macs"] / 1e6, "multiply-accumulates, millions"
        )
    if timed:
        _measured(others.pop(0), timed, lambda result: result["latency_ms"], "time of an image, ms")
    return figure


def _measured(axis: Any, results: Sequence[dict[str, Any]], across: Any, label: str) -> None:
    for result in results:
        engine = f", {result['engine']}" if "engine" in result else ""
        axis.plot(across(result), result["top1_accuracy"], linestyle="", label=f"{result['name']}{engine}")
    axis.set(title="measured here", xlabel=label, ylabel="top-1 accuracy, %")
    axis.legend(fontsize=7)


if __name__ == "__main__":
    sys.exit(main())
