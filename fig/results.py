"""Trains with every edge rule on digits and Fashion-MNIST, with three seeds; writes docs/results.md.

    python -m fig.results [--folder DIR] [--seeds N ...] [--only TEXT] [--output FILE] [OPTION ...]

`make results` does so; it takes less than an hour on two cores. Finished runs are not repeated. Other options
are passed to all trainings.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fig.finished_runs import validate_results
from fig.output_files import write_text
from fig.results_page import Measured, page
from fig.train_app import ROOT
from genutil.config.command_line import parse_command_line
from genutil.exceptions import UserError
from genutil.exit_codes import exit_status
from genutil.runs.multi_seed import seed_command
from genutil.runs.past_runs import finished_results
from genutil.runs.run_folder import RESULTS

DIGITS = "apps/quickstart/digits_dnw.yml"
FASHION = "apps/quickstart/fashion_mnist_dnw.yml"
SHORTER = ("--num_epochs", "3", "--data_args", "num_images=20000")


@dataclass(frozen=True)
class Experiment:
    """An edge rule on one data set.

    Attributes:
        name: of the runs, without the seed.
        app: its experiment file.
        options: of the command.
    """

    name: str
    app: str
    options: tuple[str, ...]

    def command(self, folder: Path, seeds: Sequence[int], extra_options: Sequence[str]) -> list[str]:
        """Its command line, after the interpreter."""
        return ["runner.py", f"app:{self.app}", *self._options(folder, seeds, extra_options)]

    def results(
        self, folder: Path, seeds: Sequence[int], extra_options: Sequence[str]
    ) -> list[dict[str, Any]]:
        """The results of exactly this command, one for each seed.

        Raises:
            UserError: a run is not finished.
        """
        argv = [f"app:{ROOT / self.app}", *self._options(folder, seeds, extra_options)]
        config = parse_command_line(argv).config
        results = []
        for seed in config.seeds or ():
            run = parse_command_line(seed_command(argv, config, seed)).config
            result = finished_results(run)
            if result is None:
                raise UserError(f"{run.name}: {run.log_dir} holds no finished run of this command")
            results.append(validate_results(result, Path(result["folder"]) / RESULTS))
        return results

    def _options(self, folder: Path, seeds: Sequence[int], extra_options: Sequence[str]) -> list[str]:
        options = [option.replace("FOLDER", str(folder)) for option in self.options]
        folders = ["--save_dir", f"{folder}/checkpoints", "--log_dir", f"{folder}/runs"]
        return ["--name", self.name, *options, *folders, "--seeds", *map(str, seeds), *extra_options]


def experiments() -> list[Experiment]:
    """The experiments, in the order in which they must run: some need the complete graph's weights."""
    listed = []
    for data, app, length in (("digits", DIGITS, ()), ("fashion_mnist", FASHION, SHORTER)):
        complete = f"FOLDER/checkpoints/{data}_complete-seed{{seed}}"
        rules: dict[str, tuple[str, ...]] = {
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
        listed += [Experiment(f"{data}_{rule}", app, (*length, *options)) for rule, options in rules.items()]
    return listed


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status of the first training that fails, 2 if the page cannot be written,
    or 0.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("results"), help="of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", default="", help="only experiments with this text in their names")
    parser.add_argument(
        "--output",
        type=Path,
        help="the page; by default docs/results.md, with --only results.md in the folder",
    )
    command = f"python -m fig.results {shlex.join(argv)}" if argv else "make results"
    return exit_status(lambda: _main(*parser.parse_known_args(argv), command))


def _main(options: argparse.Namespace, extra_options: Sequence[str], command_line: str) -> int:
    selected = [experiment for experiment in experiments() if options.only in experiment.name]
    if not selected:
        raise UserError(f"--only: no experiment has {options.only} in its name")
    folder = options.folder.resolve()
    for experiment in selected:
        command = experiment.command(folder, options.seeds, extra_options)
        print("python", *command, flush=True)
        status = subprocess.run([sys.executable, *command], cwd=ROOT).returncode
        if status:
            return status
    measured = [
        Measured(
            experiment.name,
            "python " + " ".join(experiment.command(Path("results"), options.seeds, extra_options)),
            experiment.results(folder, options.seeds, extra_options),
        )
        for experiment in selected
    ]
    # With --only, the page holds few experiments: it must not replace the full one.
    output = options.output or (folder / "results.md" if options.only else ROOT / "docs" / "results.md")
    write_text(output, page(measured, command_line))
    print(f"written: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
