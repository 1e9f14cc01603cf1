"""Accuracy of ResNet-50 on ImageNet by the fraction of its weights that is kept, as published.

    python -m fig.sparsity [RAPORT ...] [--output FILE]

RAPORT is a report of imagenet_sparsity_experiments (`experiment_raport.json`) of a ResNet-50 on
ImageNet; it is drawn as measured, at the per cent that its configuration keeps, and marked if it is shorter.
Written: FILE.png and FILE.svg, `sparsity` by default.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fig.files import read_each
from fig.published import KEPT, SPARSE_RESNET50
from fig.style import drawn, legend_outside, save
from genutil.errors import UserError
from genutil.exit_codes import exit_status
from genutil.runs.start_record import is_mixed, record_in
from genutil.text_files import read_json

EPOCHS = 100
"""Of a published training."""
_VALIDATION = 50_000
"""Images of ImageNet's validation set."""
_DENSE = ("classic", "fanin", "dense")


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("raports", type=Path, nargs="*", metavar="RAPORT")
    parser.add_argument("--output", type=Path, default=Path("sparsity"), help="without the ending")
    return exit_status(lambda: _main(parser.parse_args(argv)))


def _main(options: argparse.Namespace) -> int:
    measured = read_raports(options.raports)
    with drawn() as pyplot:
        for file in save(draw(pyplot, measured), options.output):
            print(file)
    return 0


class Measured(NamedTuple):
    """A point of a report.

    Attributes:
        name: of the configuration, and what its training lacks of the published one.
        kept: per cent of the weights in each layer that is sparse.
        top1: accuracy in per cent.
    """

    name: str
    kept: int
    top1: float


def read_raports(paths: Sequence[Path]) -> list[Measured]:
    """The points of the reports. One that cannot be shown is left out with a warning.

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
        told = read_json(path)
        options, top1 = told.get("options", told["config"]), float(told["top1_accuracy"])
        name = str(options["model_config"])
        why = _not_comparable(told, options)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no report of a trained sparse ResNet ({error!r})") from error
    match = re.fullmatch(r"(?:allsparse|ignorefirst|tdsparse)(\d+)", name)
    if not match and name not in _DENSE:
        why = [*why, f"the configuration {name}"]
    if why:
        raise UserError(f"{path}: is of {', '.join(why)}; this picture is of ResNet-50 on ImageNet")
    epochs = told.get("epochs")
    length = "epochs not told" if epochs is None else f"{epochs} epochs"
    marked = f"{name} ({length})" if epochs is None or epochs < EPOCHS else name
    if is_mixed(record_in(told)):
        marked += ", resumed from other settings"
    return Measured(marked, int(match[1]) if match else 100, top1)


def _not_comparable(told: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """What keeps a report from being drawn beside those of ResNet-50 on ImageNet."""
    images = told["images"] + told.get("corrupt_images", 0) if "images" in told else _VALIDATION
    reasons = {
        options["arch"]: options["arch"] != "resnet50",
        f"{options['num_classes']} classes": options["num_classes"] != 1000,
        f"images of {options['image_size']} pixels": options["image_size"] != 224,
        "random images": options["data_backend"] == "synthetic",
        f"the first {options['prof']} batches": options["prof"] > 0,
        f"{images} images": images != _VALIDATION,
    }
    return [reason for reason, holds in reasons.items() if holds]


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
