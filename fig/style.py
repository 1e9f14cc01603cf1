"""Style of the pictures: colors, matplotlib settings, and saving as PNG and SVG."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

from fig.output_files import write_file

POSITIVE, NEGATIVE, NEW, INK, DEAD = "#124f9e", "#d9822b", "#7a1fa2", "#1b1f24", "#c9ced6"
"""Colors. Positive and negative edges differ in lightness, too."""


@contextmanager
def pyplot_in_style() -> Iterator[Any]:
    """`matplotlib.pyplot` in the project's style, without a screen. At exit all figures are closed."""
    matplotlib.use("agg")
    from matplotlib import pyplot

    with pyplot.style.context(str(Path(__file__).with_name("wirings.mplstyle"))):
        try:
            yield pyplot
        finally:
            pyplot.close("all")


def legend_outside(axis: Any, size: int = 8) -> None:
    """Place the legend right of an axis, where it covers nothing."""
    legend = axis.legend(fontsize=size, loc="upper left", bbox_to_anchor=(1.01, 1))
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name may hold `$`


def save(figure: Any, path: Path) -> list[Path]:
    """Write a figure as `<path>.png` and `<path>.svg`. Returns both paths.

    Raises:
        UserError: they cannot be written.
    """
    written = []
    for kind in ("png", "svg"):
        file = path.with_name(f"{path.name}.{kind}")
        # Without the date, so that the same numbers give the same file.
        options = {"metadata": {"Date": None}} if kind == "svg" else {}
        write_file(file, functools.partial(figure.savefig, format=kind, **options))
        written.append(file)
    return written
