"""Accuracy of ResNet-50 on ImageNet by the part of its weights that is kept, as published.

    python -m fig.sparsity [RAPORT ...] [--output FILE]

RAPORT is a report of imagenet_sparsity_experiments (`experiment_raport.json`); it is drawn as measured.
Written: FILE.png and FILE.svg, `sparsity` by default.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fig.published import KEPT, SPARSE_RESNET50
from fig.style import drawn, save
from genutil.command import exit_status
from genutil.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("raports", type=Path, nargs="*", metavar="RAPORT")
    parser.add_argument("--output", type=Path, default=Path("sparsity"), help="without the ending")
    options = parser.parse_args(argv)
    return exit_status(lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    measured = [read_raport(path) for path in options.raports]
    with drawn() as pyplot:
        for file in save(draw(pyplot, measured), options.output):
            print(file)
    return 0


def read_raport(path: Path) -> tuple[str, float, float]:
    """(name, per cent of the weights kept, top-1 accuracy in per cent) of a report.

    Raises:
        UserError: it is missing, damaged or of something else.
    """
    try:
        told = json.loads(path.read_text())
        return told["name"], 100 * told["density"], told["top1_accuracy"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no report of a sparse ResNet ({error})") from error


def draw(pyplot: Any, measured: Sequence[tuple[str, float, float]]) -> Any:
    """The figure."""
    figure, axis = pyplot.subplots(figsize=(7, 4.2))
    for name, accuracies in SPARSE_RESNET50.items():
        axis.plot(KEPT[: len(accuracies)], accuracies, label=f"{name}, as published")
    for name, kept, accuracy in measured:
        axis.plot(kept, accuracy, linestyle="", marker="*", markersize=11, label=f"{name}, measured")
    axis.set(xlabel="weights kept in each layer, %", ylabel="top-1 accuracy on ImageNet, %", xticks=KEPT)
    axis.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    sys.exit(main())
