"""Markdown tables with aligned columns."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with columns of equal width; the first column is aligned left, numbers right."""
    rows = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    lines = [header, *rows]
    widths = [max(2, *(len(line[column]) for line in lines)) for column in range(len(header))]
    numeric = [all(_is_number(row[column]) for row in rows) for column in range(len(header))]
    rule = [f"{'-' * (width - right)}{':' * right}" for width, right in zip(widths, numeric, strict=True)]
    lines = [header, rule, *rows]
    return "\n".join(
        "| " + " | ".join(_aligned(*cell) for cell in zip(line, widths, numeric, strict=True)) + " |"
        for line in lines
    )


def _is_number(cell: str) -> bool:
    """Whether the cell is empty or begins with a digit."""
    return not cell or cell[0].isdigit()


def _aligned(cell: str, width: int, right: bool) -> str:
    return cell.rjust(width) if right else cell.ljust(width)
