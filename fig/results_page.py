"""docs/results.md: the page of the results that fig.results measures."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fig.table import COLUMNS, COST_COLUMNS, cost_row, row
from genutil.runs.run_folder import processor
from wirings.markdown import markdown_table

_COLUMNS = ("experiment", "top-1, %", "n", "epochs", "params", "MACs", "minutes")


_COST = (
    "Multiply-accumulates of a training step for one image: of the forward pass, of the gradient of the",
    "nodes, and of the gradient of the weights, for those edges that the rule needs and the forward pass",
    "reads (MACs above count all edges in use, as the paper does). `training`: of the whole training, in",
    "10¹². `effective`: edges in use on a path from image to logits. `explored`: edges that the forward pass",
    "can read and that were in use before the training or after an epoch. `churn`: edges in use after the",
    "last epoch that were not in use an epoch before.",
)


class Measured(NamedTuple):
    """An experiment's command, as the page shows it, the results of its seeds, and its section."""

    name: str
    command: str
    results: Sequence[dict[str, Any]]
    section: str


def page(measured: Sequence[Measured], command: str, remark: str = "Trainings are short.") -> str:
    """The results as a page of Markdown: tables, commands, time and machine.

    Args:
        measured: at least one experiment, in the order of the page, those of a section one after the other.
        command: the one that measured all of them.
        remark: at the end of the first paragraph.
    """
    results = [result for experiment in measured for result in experiment.results]
    seeds = sorted({result["seed"] for result in results})
    total = sum(result["wall_time"] for result in results) / 60
    versions = _unique(
        ", ".join(f"{name} {number}" for name, number in result["versions"].items()) for result in results
    )
    if any(result["config"].get("use_graph") for result in results):
        remark += (
            " Fine tuning and\nthe lottery ticket begin from the complete graph's training, "
            "so they take twice the epochs."
        )
    lines = [
        "# Results measured here", "",
        f"Written by `{command}`. Test accuracy after the last epoch, mean ± standard deviation of the",
        f"sample over the seeds {', '.join(map(str, seeds))}. {remark}",
        "",
        f"- machine: {processor()}, {os.cpu_count()} cores; {versions}",
        f"- commit: {_unique(str(result['commit']) for result in results)}",
        f"- training time: {_duration(total)} in all",
    ]  # fmt: skip
    for title, group in itertools.groupby(measured, key=lambda experiment: experiment.section):
        lines += ["", f"## {title}", "", *_section(list(group))]
    return "\n".join(lines) + "\n"


def _duration(minutes: float) -> str:
    return f"{minutes / 60:.1f} hours" if minutes >= 120 else f"{minutes:.0f} minutes"


def heading(result: Mapping[str, Any]) -> str:
    """Data set, numbers of images and epochs of a training."""
    config = result["config"]
    if config["data"] == "data.digits:Digits":
        data = "Handwritten digits: 1,437 images to train on, 360 to test"
    elif config["data"] == "data.fashion_mnist:FashionMNIST":
        num_images = int(config["data_args"].get("num_images", 60_000))
        prefix = "the first " if num_images < 60_000 else ""
        data = f"Fashion-MNIST: {prefix}{num_images:,} images to train on, 10,000 to test"
    else:
        data = str(config["data"])
    return f"{data}, {result['epochs']} epochs"


def _section(measured: Sequence[Measured]) -> list[str]:
    columns = [COLUMNS.index(name) for name in _COLUMNS]
    cells = [row(experiment.name, experiment.results) for experiment in measured]
    table = markdown_table(_COLUMNS, [[line[column] for column in columns] for line in cells])
    costs = [cost_row(experiment.name, experiment.results) for experiment in measured]
    commands = [experiment.command for experiment in measured]
    return [table, "", *_COST, "", markdown_table(COST_COLUMNS, costs), "", "```", *commands, "```"]


def _unique(texts: Iterable[str]) -> str:
    """The texts without repetitions."""
    return "; ".join(dict.fromkeys(texts))
