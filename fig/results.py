"""Trains every way to find a wiring on digits and Fashion-MNIST, with three seeds; writes docs/results.md.

    python -m fig.results [--folder DIR] [--seeds N ...] [--only TEXT] [--output FILE] [OPTION ...]

`make results` does so; it takes less than an hour on two cores. Finished runs are not repeated. Other options
are handed on to all trainings.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fig.runs import ROOT, read_results
from fig.table import COLUMNS, rows
from genutil.atomic import write_atomically
from genutil.reporting import processor
from genutil.tables import markdown_table

DIGITS = "apps/quickstart/digits_dnw.yml"
FASHION = "apps/quickstart/fashion_mnist_dnw.yml"
SHORTER = ("--num_epochs", "3", "--data_args", "num_images=20000")
_SHOWN = ("experiment", "top-1, %", "n", "epochs", "params", "MACs", "minutes")


@dataclass(frozen=True)
class Experiment:
    """One way to find a wiring on one data set.

    Attributes:
        name: of the runs, without the seed.
        app: its experiment file.
        options: of the command.
    """

    name: str
    app: str
    options: tuple[str, ...]

    def command(self, folder: Path, seeds: Sequence[int], further: Sequence[str]) -> list[str]:
        """Its command line, after the interpreter."""
        options = [option.replace("FOLDER", str(folder)) for option in self.options]
        places = ["--save_dir", f"{folder}/checkpoints", "--log_dir", f"{folder}/runs"]
        chosen = ["--seeds", *map(str, seeds)]
        return ["runner.py", f"app:{self.app}", "--name", self.name, *options, *places, *chosen, *further]


def experiments() -> list[Experiment]:
    """In the order in which they must run: some need the complete graph's weights."""
    found = []
    for data, app, length in (("digits", DIGITS, ()), ("fashion_mnist", FASHION, SHORTER)):
        complete = f"FOLDER/checkpoints/{data}_complete-seed{{seed}}"
        ways: dict[str, tuple[str, ...]] = {
            "random_graph": ("--graph", "random"),
            "dnw": (),
            "dnw_readable": ("--edge_scope", "readable"),
            "dnw_no_update": ("--graph", "dnw_no_update"),
            "td": ("--graph", "td", "--rho", "0.95"),
            "reg_td": ("--graph", "reg_td", "--rho", "0.95"),
            "complete": ("--graph", "complete"),
            "fine_tune": ("--graph", "fine_tune", "--lr", "0.01", "--use_graph", f"{complete}/last.pt"),
            "lottery_ticket": (
                "--graph", "fine_tune", "--use_graph", f"{complete}/last.pt", "--use_init",
                f"{complete}/init.pt",
            ),
        }  # fmt: skip
        found += [Experiment(f"{data}_{way}", app, (*length, *options)) for way, options in ways.items()]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status of the first training that fails, or 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("results"), help="of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", default="", help="only experiments with this text in their names")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results.md")
    options, further = parser.parse_known_args(argv)
    chosen = [experiment for experiment in experiments() if options.only in experiment.name]
    for experiment in chosen:
        command = experiment.command(options.folder.resolve(), options.seeds, further)
        print("python", *command, flush=True)
        status = subprocess.run([sys.executable, *command], cwd=ROOT).returncode
        if status:
            return status
    found = read_results([options.folder / "runs"])
    text = page(chosen, found, options.seeds, further)
    write_atomically(options.output, lambda file: file.write(text.encode()))
    print(f"written: {options.output}")
    return 0


def page(
    chosen: Sequence[Experiment],
    results: Sequence[dict[str, Any]],
    seeds: Sequence[int],
    further: Sequence[str],
) -> str:
    """The results as a page of Markdown: tables, commands, time and machine."""
    lines = {line[0]: line for line in rows(results)}
    columns = [COLUMNS.index(name) for name in _SHOWN]
    first = results[0]
    total = sum(result["wall_time"] for result in results) / 60
    versions = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    parts = [
        "# Results measured here", "",
        "Written by `make results`. Test accuracy after the last epoch, mean ± standard deviation of the",
        f"sample over the seeds {', '.join(map(str, seeds))}. Trainings are short. Fine tuning and",
        "the lottery ticket begin from the complete graph's training, so they take twice the epochs.",
        "",
        f"- machine: {processor()}, {os.cpu_count()} cores; {versions}",
        f"- commit: {', '.join(sorted({str(result['commit']) for result in results}))}",
        f"- training time: {total:.0f} minutes in all",
    ]  # fmt: skip
    for data, told in TITLES.items():
        own = [experiment for experiment in chosen if experiment.name.startswith(data)]
        shown = [[lines[experiment.name][column] for column in columns] for experiment in own]
        if not own:
            continue
        parts += ["", f"## {told}", "", markdown_table(_SHOWN, shown), "", "```", *(
            "python " + " ".join(experiment.command(Path("results"), seeds, further)) for experiment in own
        ), "```"]  # fmt: skip
    return "\n".join(parts) + "\n"


TITLES = {
    "digits": "Handwritten digits: 1,437 images to train on, 360 to test, 8 epochs",
    "fashion_mnist": "Fashion-MNIST: the first 20,000 images to train on, 10,000 to test, 3 epochs",
}
"""Headings by the beginning of the experiments' names."""

if __name__ == "__main__":
    sys.exit(main())
