"""The common look of the pictures, and how they are written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

from fig.files import write_file

POSITIVE, NEGATIVE, NEW, INK, DEAD = "#124f9e", "#d9822b", "#7a1fa2", "#1b1f24", "#c9ced6"
"""Positive and negative differ in lightness, too."""


@contextmanager
def drawn() -> Iterator[Any]:
    """`matplotlib.pyplot` in the project's style, without a screen; what is left open is closed."""
    matplotlib.use("agg")
    from matplotlib import pyplot

    with pyplot.style.context(str(Path(__file__).with_name("wirings.mplstyle"))):
        try:
            yield pyplot
        finally:
            pyplot.close("all")


def legend_outside(axis: Any, size: int = 8) -> None:
    """The legend right of an axis, where it covers nothing."""
    legend = axis.legend(fontsize=size, loc="upper left", bbox_to_anchor=(1.01, 1))
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name may hold `$`


def save(figure: Any, path: Path) -> list[Path]:
    """Write a picture as `<path>.png` and `<path>.svg`. Returns both.

    Raises:
        UserError: they cannot be written.
    """
    written = []
    for kind in ("png", "svg"):
        file = path.with_name(f"{path.name}.{kind}")
        # Without the date, so that the same numbers give the same file.
        more = {"metadata": {"Date": None}} if kind == "svg" else {}
        write_file(file, lambda open_file, k=kind, m=more: figure.savefig(open_file, format=k, **m))  # type: ignore[misc]
        written.append(file)
    return written
