"""docs/results.md: the page of the results that fig.results measures."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fig.table import COLUMNS, row
from genutil.runs.run_folder import processor
from wirings.markdown import markdown_table

_COLUMNS = ("experiment", "top-1, %", "n", "epochs", "params", "MACs", "minutes")


class Measured(NamedTuple):
    """An experiment's command, as the page shows it, and the results of its seeds."""

    name: str
    command: str
    results: Sequence[dict[str, Any]]


def page(measured: Sequence[Measured], command: str) -> str:
    """The results as a page of Markdown: tables, commands, time and machine.

    Args:
        measured: at least one experiment, in the order of the page.
        command: the one that measured all of them.
    """
    results = [result for experiment in measured for result in experiment.results]
    seeds = sorted({result["seed"] for result in results})
    total = sum(result["wall_time"] for result in results) / 60
    versions = _unique(
        ", ".join(f"{name} {number}" for name, number in result["versions"].items()) for result in results
    )
    remark = ""
    if any(result["config"].get("use_graph") for result in results):
        remark = (
            " Fine tuning and\nthe lottery ticket begin from the complete graph's training, "
            "so they take twice the epochs."
        )
    lines = [
        "# Results measured here", "",
        f"Written by `{command}`. Test accuracy after the last epoch, mean ± standard deviation of the",
        f"sample over the seeds {', '.join(map(str, seeds))}. Trainings are short.{remark}",
        "",
        f"- machine: {processor()}, {os.cpu_count()} cores; {versions}",
        f"- commit: {_unique(str(result['commit']) for result in results)}",
        f"- training time: {total:.0f} minutes in all",
    ]  # fmt: skip
    for title, group in itertools.groupby(measured, key=lambda experiment: heading(experiment.results[0])):
        lines += ["", f"## {title}", "", *_section(list(group))]
    return "\n".join(lines) + "\n"


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
    return [table, "", "```", *(experiment.command for experiment in measured), "```"]


def _unique(texts: Iterable[str]) -> str:
    """The texts without repetitions."""
    return "; ".join(dict.fromkeys(texts))
