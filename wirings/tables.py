"""Tables of text that read well on a screen and are Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with columns of equal width; the first column is aligned left, numbers right."""
    rows = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    lines = [header, *rows]
    widths = [max(2, *(len(line[column]) for line in lines)) for column in range(len(header))]
    numeric = [all(_is_number(row[column]) for row in rows) for column in range(len(header))]
    rule = [f"{'-' * (width - right)}{':' * right}" for width, right in zip(widths, numeric, strict=True)]
    shown = [header, rule, *rows]
    return "\n".join(
        "| " + " | ".join(_aligned(*cell) for cell in zip(line, widths, numeric, strict=True)) + " |"
        for line in shown
    )


def _is_number(cell: str) -> bool:
    """Digits with a unit, or nothing."""
    return not cell or cell[0].isdigit()


def _aligned(cell: str, width: int, right: bool) -> str:
    return cell.rjust(width) if right else cell.ljust(width)
