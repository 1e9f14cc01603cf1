"""A table of results: mean ± standard deviation over seeds, next to the published results.

    python -m fig.table RUN [RUN ...] [--format markdown|csv|latex] [--output FILE]

RUN is the folder of a run, or a folder of such folders (`runs`); one that cannot be read is skipped with a
warning. Runs of one experiment with different seeds are one row; the accuracy is that after the last epoch. A
published value is marked if the run had other settings than the published experiment's file, and so is a
training that was resumed from a checkpoint of other settings. CSV is for programs: a number in each cell.
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

from fig.finished_runs import experiment_name, group_by_experiment, read_results
from fig.output_files import write_text
from fig.paper_results import Published, find_published, other_settings
from genutil.exit_codes import exit_status
from genutil.runs.start_record import has_setting_changes, record_in
from genutil.spread import mean_and_std, spread
from wirings.markdown import markdown_table

COLUMNS = (
    "experiment", "wiring", "top-1, %", "n", "published, %", "epochs", "params", "MACs", "minutes", "commit",
    "device",
)  # fmt: skip
CSV_COLUMNS = (
    "experiment", "wiring", "n", "seeds", "mixed_settings", "top1_mean", "top1_std", "top1_min", "top1_max",
    "published_top1", "published_std", "published_epochs", "other_settings", "epochs",
    "params_mean", "params_std", "params_min", "params_max", "macs_mean", "macs_std", "macs_min", "macs_max",
    "minutes_median", "steps", "edges_mean", "effective_edges_mean", "live_nodes_mean", "training_macs_mean",
    "edges_explored_mean", "edge_churn_mean", "dense_layers", "commit", "device",
)  # fmt: skip
"""Of CSV; docs/running.md describes them."""
COST_COLUMNS = (
    "experiment", "steps", "edges", "effective", "live nodes", "forward", "of nodes", "of weights",
    "training", "explored, %", "churn, %", "dense layers",
)  # fmt: skip
"""Of `cost_row`; docs/results.md describes them."""
_MEANS = (
    "edges", "effective_edges", "live_nodes", "training_macs", "edges_explored", "edge_churn",
)  # fmt: skip
_MAX_KEYS = 3
"""Number of keys that a mark of other settings names."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--format", choices=[*FORMATS, "csv"], default="markdown")
    parser.add_argument("--output", type=Path, help="write the table to this file")
    return exit_status(lambda: _main(parser.parse_args(argv)))


def _main(options: argparse.Namespace) -> int:
    results = read_results(options.runs)
    text = as_csv(results) if options.format == "csv" else FORMATS[options.format](COLUMNS, rows(results))
    if options.output is None:
        print(text)
    else:
        write_text(options.output, f"{text}\n")
    return 0


def rows(results: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    """One row for each experiment, in the order of their first results."""
    return [row(name, group) for name, group in group_by_experiment(results).items()]


def row(name: str, group: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The row of an experiment's seeds."""
    config, first = group[0]["config"], group[0]
    published = find_published(experiment_name(first), config["data"])
    epochs = str(first["epochs"])
    if published is not None and first["epochs"] < published.epochs:
        epochs += f" (shorter than published: {published.epochs})"
    minutes = statistics.median(result["wall_time"] for result in group) / 60
    commits = sorted({(result["commit"] or "unknown")[:7] + _dirty(result["commit"]) for result in group})
    return (
        name,
        config["graph"],
        spread([result["top1_accuracy"] for result in group]),
        str(len(group)),
        "" if published is None else f"{published}{_mark(experiment_name(first), config, published)}",
        epochs,
        spread([result["params"] for result in group if "params" in result], digits=0),
        spread([result["macs"] / 1e6 for result in group if "macs" in result], digits=1, unit="M"),
        f"{minutes:.1f}",
        ", ".join(commits),
        ", ".join(sorted({result["device"] for result in group})),
    )


def cost_row(name: str, group: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The cost of an experiment's trainings and the change of its wiring: cells of COST_COLUMNS."""

    def cell(key: str, digits: int = 0, scale: float = 1.0, unit: str = "") -> str:
        return spread([result[key] / scale for result in group if key in result], digits, unit)

    def macs(key: str) -> str:
        steps = [result["training_macs_per_image"] for result in group if "training_macs" in result]
        return spread([step[key] / 1e6 for step in steps], 1, "M")

    return (
        name,
        f"{group[0]['steps']:,}" if "steps" in group[0] else "",
        *(cell("edges"), cell("effective_edges"), cell("live_nodes")),
        *(macs("forward"), macs("nodes"), macs("weights")),
        cell("training_macs", 2, 1e12, "T"),
        *(cell("edges_explored", 1), cell("edge_churn", 2)),
        ", ".join(dense_layers(group[0])),
    )


def dense_layers(result: Mapping[str, Any]) -> list[str]:
    """Names of the layers without wiring whose weights are multiplied, so without norms; `all` if no layer is
    wired.
    """
    layers = result.get("layers", ())
    if layers and not any(layer.get("potential") for layer in layers):
        return ["all"]
    return [
        layer["name"] for layer in layers if layer["params"] and layer["macs"] and not layer.get("potential")
    ]


def _mark(name: str, config: Mapping[str, Any], published: Published) -> str:
    """A mark for the published value if this was another experiment."""
    keys = _other_settings(name, config, published)
    rest = f" and {len(keys) - _MAX_KEYS} more" if len(keys) > _MAX_KEYS else ""
    return f" (other settings: {', '.join(keys[:_MAX_KEYS])}{rest})" if keys else ""


def _other_settings(name: str, config: Mapping[str, Any], published: Published) -> list[str]:
    """The keys that differ from the published experiment's, without `num_epochs` if the run was shorter."""
    shorter = config.get("num_epochs", 0) <= published.epochs
    return [key for key in other_settings(name, config) if not (shorter and key == "num_epochs")]


def _dirty(commit: str | None) -> str:
    return "-dirty" if commit is not None and commit.endswith("-dirty") else ""


def as_csv(results: Iterable[dict[str, Any]]) -> str:
    """Comma-separated values with CSV_COLUMNS as the header; unknown values are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_record(name, group) for name, group in group_by_experiment(results).items())
    return text.getvalue().rstrip("\n")


def _record(name: str, group: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first, config = group[0], group[0]["config"]
    published = find_published(experiment_name(first), config["data"])
    record = {
        "experiment": name,
        "wiring": config["graph"],
        "n": len(group),
        "seeds": " ".join(str(result["seed"]) for result in group),
        "mixed_settings": int(has_setting_changes(record_in(first))),
        "epochs": first["epochs"],
        "minutes_median": statistics.median(result["wall_time"] for result in group) / 60,
        "commit": " ".join(sorted({result["commit"] or "unknown" for result in group})),
        "device": " ".join(sorted({result["device"] for result in group})),
    }
    for key, column in (("top1_accuracy", "top1"), ("params", "params"), ("macs", "macs")):
        values = [result[key] for result in group if key in result]
        if values:
            mean, std = mean_and_std(values)
            record |= {f"{column}_mean": mean, f"{column}_std": std}
            record |= {f"{column}_min": min(values), f"{column}_max": max(values)}
    for key in _MEANS:
        if values := [result[key] for result in group if key in result]:
            record[f"{key}_mean"] = mean_and_std(values)[0]
    record |= {"steps": first.get("steps", ""), "dense_layers": " ".join(dense_layers(first))}
    if published is not None:
        record |= {
            "published_top1": published.top1,
            "published_std": published.std,
            "published_epochs": published.epochs,
            "other_settings": " ".join(_other_settings(experiment_name(first), config, published)),
        }
    return record


def as_latex(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A tabular with the rules of booktabs."""
    escapes = {character: rf"\{character}" for character in "%_&#${}"}
    escapes |= {"±": r"$\pm$", "\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}"}

    def line(cells: Sequence[str]) -> str:
        escaped = ("".join(escapes.get(character, character) for character in cell) for cell in cells)
        return " & ".join(escaped) + r" \\"

    body = "\n".join(line(cells) for cells in lines)
    begin = r"\begin{tabular}{" + "l" * len(header) + "}"
    return "\n".join([begin, r"\toprule", line(header), r"\midrule", body, r"\bottomrule", r"\end{tabular}"])


FORMATS: dict[str, Callable[[Sequence[str], Sequence[Sequence[str]]], str]] = {
    "markdown": markdown_table,
    "latex": as_latex,
}

if __name__ == "__main__":
    sys.exit(main())
