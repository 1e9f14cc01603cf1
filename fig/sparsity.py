"""Accuracy of ResNet-50 on ImageNet by the fraction of weights kept, as published and as measured.

    python -m fig.sparsity [REPORT ...] [--output FILE]

REPORT is `experiment_raport.json` of imagenet_sparsity_experiments/main.py, or `results.json` of a run of
apps/resnet, of ResNet-50 on ImageNet. It is drawn as measured, at the per cent that its configuration keeps,
and marked if its training is shorter.
Written: FILE.png and FILE.svg, by default `sparsity`.
"""

from __future__ import annotations

import argparse
import math
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
from genutil.runs.start_record import has_setting_changes, record_in
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
    parser.add_argument("reports", type=Path, nargs="*", metavar="REPORT")
    parser.add_argument("--output", type=Path, default=Path("sparsity"), help="without the suffix")
    return exit_status(lambda: _main(parser.parse_args(argv)))


def _main(options: argparse.Namespace) -> int:
    measured = read_reports(options.reports)
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


def read_reports(paths: Sequence[Path]) -> list[Measured]:
    """The points of the reports. One that cannot be shown is skipped with a warning.

    Raises:
        UserError: none of them can be shown.
    """
    return [point for _, point in read_each(paths, read_report)]


def read_report(path: Path) -> Measured:
    """The point of a report.

    Raises:
        UserError: it is missing, damaged, or not of a ResNet-50 on ImageNet.
    """
    try:
        report = read_json(path)
        options, top1 = _options(report), float(report["top1_accuracy"])
        name = str(options["model_config"])
        deviations = _deviations(report, options)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
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
    if has_setting_changes(record_in(report)):
        label += ", resumed from other settings"
    return Measured(label, int(match[1]) if match else 100, top1)


def _options(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The published options of a report, or those with the meaning of a run's keys."""
    config = report["config"]
    options: Mapping[str, Any] = report.get("options", config)
    if "options" in report or "model_config" in config:  # the latter in reports of earlier versions
        return options
    return {
        "arch": config["model_args"].get("arch", "resnet50"),
        "model_config": _configuration(config),
        "num_classes": config["output_size"],
        "image_size": config["image_size"],
        "data_backend": "synthetic" if config["data"].startswith("data.synthetic:") else "pytorch",
        "prof": config["max_batches"] or -1,
    }


def _configuration(config: Mapping[str, Any]) -> str:
    """The published configuration with these keys; a description of the keys if there is none."""
    rate, excluded = config["prune_rate"], config["model_args"].get("exclude")
    kept = round(100 * (1 - rate))
    is_published = config["model"] == "models.sparse_resnet:SparseResNet" and config["budget"] is None
    if is_published and not rate:
        return "classic" if config["model_args"].get("initialisation") == "fan_out" else "dense"
    if is_published and math.isclose(kept, 100 * (1 - rate)):
        if config["graph"] == "dnw" and excluded in (None, ["conv1"]):
            return f"{'ignorefirst' if excluded else 'allsparse'}{kept}"
        if config["graph"] == "td" and excluded is None and config["rho"] in (rate, "gamma"):
            return f"tdsparse{kept}"
    return f"{config['model']}, {config['graph']}, prune_rate {rate}"


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
