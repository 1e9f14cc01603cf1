"""Trains with the rules of the paper on digits and Fashion-MNIST, with three seeds; writes docs/results.md.

    python -m fig.results [--folder DIR] [--seeds N ...] [--only TEXT] [--output FILE] [OPTION ...]

`make results` does so; it takes less than an hour on two cores. Finished runs are not repeated. Other options
are passed to all trainings.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from fig.output_files import write_text
from fig.result_runs import Experiment
from fig.results_page import Measured, heading, page
from fig.train_app import ROOT
from genutil.exceptions import UserError
from genutil.exit_codes import exit_status
from wirings.rules import RULES, options_of

DIGITS = "apps/quickstart/digits_dnw.yml"
FASHION = "apps/quickstart/fashion_mnist_dnw.yml"
SHORTER = ("--num_epochs", "3", "--data_args", "num_images=20000")


def experiments() -> list[Experiment]:
    """The experiments, in the order in which they must run: some need the complete graph's weights."""
    return [*_of_the_paper("digits", DIGITS, ()), *_of_the_paper("fashion_mnist", FASHION, SHORTER)]


def every_rule_on_digits() -> list[Experiment]:
    """Experiments with the rules of the paper, and with all others."""
    of_the_paper = _of_the_paper("digits", DIGITS, ())
    done = {"random", *(experiment.name.removeprefix("digits_") for experiment in of_the_paper)}
    others = [rule for rule in RULES if rule not in done]
    return [*of_the_paper, *(Experiment(f"digits_{rule}", DIGITS, rule_options(rule, 10)) for rule in others)]


def _of_the_paper(data: str, app: str, length: Sequence[str]) -> list[Experiment]:
    """Experiments with the rules of the paper on one data set."""
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
            *("--graph", "fine_tune", "--use_graph", f"{complete}/last.pt"),
            *("--use_init", f"{complete}/init.pt"),
        ),
    }
    return [Experiment(f"{data}_{rule}", app, (*length, *options)) for rule, options in rules.items()]


def rule_options(rule: str, update_interval: int | None = None) -> tuple[str, ...]:
    """Options of an experiment with a rule; only edges that the forward pass reads, where it can choose.

    Args:
        rule: a name of RULES.
        update_interval: of rules that have this option; None: their default.
    """
    options = ["--graph", rule]
    if update_interval is not None and "update_interval" in options_of(rule):
        options += ["--graph_args", f"update_interval={update_interval}"]
    if "edge_scope" in options_of(rule):
        options += ["--edge_scope", "readable"]
    return tuple(options)


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
        status = experiment.train(folder, options.seeds, extra_options)
        if status:
            return status
    measured = []
    for experiment in selected:
        shown = "python " + " ".join(experiment.command(Path("results"), options.seeds, extra_options))
        results = experiment.results(folder, options.seeds, extra_options)
        measured.append(Measured(experiment.name, shown, results, heading(results[0])))
    # With --only, the page holds few experiments: it must not replace the full one.
    output = options.output or (folder / "results.md" if options.only else ROOT / "docs" / "results.md")
    write_text(output, page(measured, command_line))
    print(f"written: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
