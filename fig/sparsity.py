"""Accuracy of ResNet-50 on ImageNet by the fraction of weights kept, as published and as measured.

    python -m fig.sparsity [RAPORT ...] [--output FILE]

RAPORT is a report of imagenet_sparsity_experiments (`experiment_raport.json`) of a ResNet-50 on
ImageNet; it is drawn as measured, at the per cent that its configuration keeps, and marked if it is shorter.
Written: FILE.png and FILE.svg, by default `sparsity`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fig.finished_runs import read_each
from fig.paper_results import KEPT, SPARSE_RESNET50
from fig.style import legend_outside, pyplot_in_style, save
from genutil.exceptions import UserError
from genutil.exit_codes import exit_status
from genutil.runs.start_record import is_mixed, record_in
from genutil.text_files import read_json

EPOCHS = 100
"""Of a published training."""
_NUM_VALIDATION = 50_000
"""Images of ImageNet's validation set."""
_DENSE = ("classic", "fanin", "dense")


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("raports", type=Path, nargs="*", metavar="RAPORT")
    parser.add_argument("--output", type=Path, default=Path("sparsity"), help="without the suffix")
    return exit_status(lambda: _main(parser.parse_args(argv)))


def _main(options: argparse.Namespace) -> int:
    measured = read_raports(options.raports)
    with pyplot_in_style() as pyplot:
        for file in save(draw(pyplot, measured), options.output):
            print(file)
    return 0


class Measured(NamedTuple):
    """A point of a report.

    Attributes:
        name: of the configuration, with a mark where its training differs from the published one.
        kept: per cent of the weights in each layer that is sparse.
        top1: accuracy in per cent.
    """

    name: str
    kept: int
    top1: float


def read_raports(paths: Sequence[Path]) -> list[Measured]:
    """The points of the reports. One that cannot be shown is skipped with a warning.

    Raises:
        UserError: none of them can be shown.
    """
    return [point for _, point in read_each(paths, read_raport)]


def read_raport(path: Path) -> Measured:
    """The point of a report.

    Raises:
        UserError: it is missing, damaged, or not of a ResNet-50 on ImageNet.
    """
    try:
        report = read_json(path)
        options, top1 = report.get("options", report["config"]), float(report["top1_accuracy"])
        name = str(options["model_config"])
        deviations = _deviations(report, options)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not a report of a trained sparse ResNet ({error!r})") from error
    match = re.fullmatch(r"(?:allsparse|ignorefirst|tdsparse)(\d+)", name)
    if not match and name not in _DENSE:
        deviations = [*deviations, f"the configuration {name}"]
    if deviations:
        raise UserError(
            f"{path}: is a report of {', '.join(deviations)}; this picture shows ResNet-50 on ImageNet"
        )
    epochs = report.get("epochs")
    length = "unknown epochs" if epochs is None else f"{epochs} epochs"
    label = f"{name} ({length})" if epochs is None or epochs < EPOCHS else name
    if is_mixed(record_in(report)):
        label += ", resumed from other settings"
    return Measured(label, int(match[1]) if match else 100, top1)


def _deviations(report: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """How a report differs from one of ResNet-50 on ImageNet; empty: it can be drawn."""
    images = report["images"] + report.get("corrupt_images", 0) if "images" in report else _NUM_VALIDATION
    reasons = {
        options["arch"]: options["arch"] != "resnet50",
        f"{options['num_classes']} classes": options["num_classes"] != 1000,
        f"images of {options['image_size']} pixels": options["image_size"] != 224,
        "random images": options["data_backend"] == "synthetic",
        f"the first {options['prof']} batches": options["prof"] > 0,
        f"{images} images": images != _NUM_VALIDATION,
    }
    return [reason for reason, applies in reasons.items() if applies]


def draw(pyplot: Any, measured: Sequence[Measured]) -> Any:
    """The figure."""
    figure, axis = pyplot.subplots(figsize=(9, 4.2))
    for name, accuracies in SPARSE_RESNET50.items():
        axis.plot(KEPT[: len(accuracies)], accuracies, label=f"{name}, as published")
    for name, kept, top1 in measured:
        axis.plot(kept, top1, linestyle="", markersize=9, label=f"{name}, measured")
    axis.set(
        xlabel="weights kept in each sparse layer, %", ylabel="top-1 accuracy on ImageNet, %", xticks=KEPT
    )
    legend_outside(axis)
    return figure


if __name__ == "__main__":
    sys.exit(main())
