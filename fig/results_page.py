"""The page of results that fig.results measures: what stands in docs/results.md."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fig.table import COLUMNS, row
from genutil.runs.run_folder import processor
from wirings.tables import markdown_table

_SHOWN = ("experiment", "top-1, %", "n", "epochs", "params", "MACs", "minutes")


class Measured(NamedTuple):
    """An experiment's command, as the page shows it, and the results of its seeds."""

    name: str
    command: str
    results: Sequence[dict[str, Any]]


def page(measured: Sequence[Measured], by: str) -> str:
    """The results as a page of Markdown: tables, commands, time and machine.

    Args:
        measured: experiments in their order; at least one.
        by: the command that measured all of them.
    """
    results = [result for one in measured for result in one.results]
    seeds = sorted({result["seed"] for result in results})
    total = sum(result["wall_time"] for result in results) / 60
    versions = _each(
        ", ".join(f"{name} {number}" for name, number in result["versions"].items()) for result in results
    )
    twice = ""
    if any(result["config"].get("use_graph") for result in results):
        twice = (
            " Fine tuning and\nthe lottery ticket begin from the complete graph's training, "
            "so they take twice the epochs."
        )
    parts = [
        "# Results measured here", "",
        f"Written by `{by}`. Test accuracy after the last epoch, mean ± standard deviation of the",
        f"sample over the seeds {', '.join(map(str, seeds))}. Trainings are short.{twice}",
        "",
        f"- machine: {processor()}, {os.cpu_count()} cores; {versions}",
        f"- commit: {_each(str(result['commit']) for result in results)}",
        f"- training time: {total:.0f} minutes in all",
    ]  # fmt: skip
    for told, group in itertools.groupby(measured, key=lambda one: heading(one.results[0])):
        parts += ["", f"## {told}", "", *_section(list(group))]
    return "\n".join(parts) + "\n"


def heading(result: Mapping[str, Any]) -> str:
    """What was trained on, and for how long."""
    config = result["config"]
    if config["data"] == "data.digits:Digits":
        told = "Handwritten digits: 1,437 images to train on, 360 to test"
    elif config["data"] == "data.fashion_mnist:FashionMNIST":
        num_images = int(config["data_args"].get("num_images", 60_000))
        first = "the first " if num_images < 60_000 else ""
        told = f"Fashion-MNIST: {first}{num_images:,} images to train on, 10,000 to test"
    else:
        told = str(config["data"])
    return f"{told}, {result['epochs']} epochs"


def _section(measured: Sequence[Measured]) -> list[str]:
    columns = [COLUMNS.index(name) for name in _SHOWN]
    lines = [row(one.name, one.results) for one in measured]
    table = markdown_table(_SHOWN, [[line[column] for column in columns] for line in lines])
    return [table, "", "```", *(one.command for one in measured), "```"]


def _each(texts: Iterable[str]) -> str:
    """Different texts, each once."""
    return "; ".join(dict.fromkeys(texts))
