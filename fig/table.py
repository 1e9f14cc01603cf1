"""A table of results: mean ± standard deviation over seeds, beside what was published.

    python -m fig.table RUN [RUN ...] [--format markdown|csv|latex] [--output FILE]

RUN is the folder of a run, or a folder of such folders (`runs`). Runs of one experiment with different seeds
are one row; the accuracy is that after the last epoch. A published value is marked where the run had other
settings than the published experiment's file.
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fig.files import write_text
from fig.finished import by_experiment, experiment_name, read_results
from fig.published import Published, find_published, other_settings
from genutil.command import exit_status
from genutil.spread import spread
from genutil.tables import markdown_table

COLUMNS = (
    "experiment", "wiring", "top-1, %", "n", "published, %", "epochs", "params", "MACs", "minutes", "commit",
    "device",
)  # fmt: skip
_SHORT = "shorter than published"
_NAMED = 3
"""Keys that are named where settings are not the published ones."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--format", choices=list(FORMATS), default="markdown")
    parser.add_argument("--output", type=Path, help="write the table to this file")
    options = parser.parse_args(argv)
    return exit_status(lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    text = FORMATS[options.format](COLUMNS, rows(read_results(options.runs)))
    if options.output is None:
        print(text)
    else:
        write_text(options.output, f"{text}\n")
    return 0


def rows(results: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    """One row for each experiment, in the order of their first results."""
    return [row(name, group) for name, group in by_experiment(results).items()]


def row(name: str, group: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The row of an experiment's seeds."""
    config, first = group[0]["config"], group[0]
    published = find_published(experiment_name(first), config["data"])
    epochs = str(first["epochs"])
    if published is not None and first["epochs"] < published.epochs:
        epochs += f" ({_SHORT}: {published.epochs})"
    minutes = statistics.median(result["wall_time"] for result in group) / 60
    commits = sorted({(result["commit"] or "unknown")[:7] + _dirty(result["commit"]) for result in group})
    return (
        name,
        config["graph"],
        spread([result["top1_accuracy"] for result in group]),
        str(len(group)),
        "" if published is None else f"{published}{_marked(experiment_name(first), config, published)}",
        epochs,
        spread([result["params"] for result in group if "params" in result], digits=0),
        spread([result["macs"] / 1e6 for result in group if "macs" in result], digits=1, unit="M"),
        f"{minutes:.1f}",
        ", ".join(commits),
        ", ".join(sorted({result["device"] for result in group})),
    )


def _marked(name: str, config: Mapping[str, Any], published: Published) -> str:
    """A mark behind the published value where this was another experiment."""
    keys = other_settings(name, config)
    if config.get("num_epochs", 0) <= published.epochs:  # shorter ones are marked as such
        keys = [key for key in keys if key != "num_epochs"]
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return f" (other settings: {', '.join(keys[:_NAMED])}{more})" if keys else ""


def _dirty(commit: str | None) -> str:
    return "-dirty" if commit is not None and commit.endswith("-dirty") else ""


def as_csv(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Comma-separated values."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *lines])
    return text.getvalue().rstrip("\n")


def as_latex(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A tabular of booktabs' rules."""
    signs = {"%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", "±": r"$\pm$"}

    def line(cells: Sequence[str]) -> str:
        return " & ".join("".join(signs.get(sign, sign) for sign in cell) for cell in cells) + r" \\"

    body = "\n".join(line(cells) for cells in lines)
    start = r"\begin{tabular}{" + "l" * len(header) + "}"
    return "\n".join([start, r"\toprule", line(header), r"\midrule", body, r"\bottomrule", r"\end{tabular}"])


FORMATS: dict[str, Callable[[Sequence[str], Sequence[Sequence[str]]], str]] = {
    "markdown": markdown_table,
    "csv": as_csv,
    "latex": as_latex,
}

if __name__ == "__main__":
    sys.exit(main())
