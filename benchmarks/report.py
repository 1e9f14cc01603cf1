"""Report of a benchmark: one table and the machine, as text and as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe
from wirings.markdown import markdown_table


@dataclass
class Report:
    """One table.

    Attributes:
        title: of the table.
        columns, rows: the table as text.
        notes: lines below the title.
        results: the same numbers as values; times in seconds, memory in bytes.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)

    def add(self, cells: tuple[str, ...], **numbers: Any) -> None:
        """Add a row of the table, and its numbers."""
        self.rows.append(cells)
        self.results.append(numbers)

    def body(self) -> str:
        """Notes and table, as Markdown."""
        return "\n".join([*self.notes, "", markdown_table(self.columns, self.rows)])


def run(measure: Callable[[argparse.Namespace], Report], parser: argparse.ArgumentParser) -> None:
    """Command of a benchmark: measures, prints the report, and writes it to the file of --json."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report, machine = measure(options), describe()
    print(f"# {report.title}", *(f"{name}: {value}" for name, value in machine.items()), sep="\n")
    print(report.body())
    if options.json:
        content = {
            "title": report.title,
            "machine": machine,
            "notes": report.notes,
            "results": report.results,
        }
        options.json.write_text(json.dumps({**content, "body": report.body()}, indent=2) + "\n")
