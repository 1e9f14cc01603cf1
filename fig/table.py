"""A table of results: mean ± standard deviation over seeds, beside what was published.

    python -m fig.table RUN [RUN ...] [--format markdown|csv|latex] [--output FILE]

RUN is the folder of a run, or a folder of such folders (`runs`). Runs of one experiment with different seeds
are one row; the accuracy is that after the last epoch.
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from fig.published import find_published
from fig.runs import by_experiment, read_results
from genutil.atomic import write_atomically
from genutil.command import exit_status
from genutil.tables import markdown_table

COLUMNS = (
    "experiment", "wiring", "top-1, %", "n", "published, %", "epochs", "params", "MACs", "minutes", "commit",
    "device",
)  # fmt: skip
_SHORT = "shorter than published"


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
        write_atomically(options.output, lambda file: file.write(f"{text}\n".encode()))
    return 0


def rows(results: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    """One row for each experiment, in the order of their first results."""
    return [_row(name, group) for (name, _), group in by_experiment(results).items()]


def _row(name: str, group: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    config, first = group[0]["config"], group[0]
    published = find_published(name, config["data"])
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
        "" if published is None else spread_of(published.top1, published.std),
        epochs,
        spread([result["params"] for result in group], digits=0) if "params" in first else "",
        f"{first['macs'] / 1e6:.1f}M" if "macs" in first else "",
        f"{minutes:.1f}",
        ", ".join(commits),
        ", ".join(sorted({result["device"] for result in group})),
    )


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± standard deviation of the sample; the value itself where there is one."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return spread_of(statistics.mean(values), deviation, digits)


def spread_of(mean: float, deviation: float | None, digits: int | None = None) -> str:
    """`mean ± deviation`; published numbers keep their digits."""
    if digits is None:
        return f"{mean}" if deviation is None else f"{mean} ± {deviation}"
    text = f"{mean:,.{digits}f}"
    return text if deviation is None else f"{text} ± {deviation:,.{digits}f}"


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
