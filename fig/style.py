"""The common look of the pictures, and how they are written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

from genutil.atomic import write_atomically
from genutil.errors import UserError

POSITIVE, NEGATIVE, NEW, INK, DEAD = "#1f66c1", "#c85a17", "#7a1fa2", "#1b1f24", "#c9ced6"


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
        try:
            write_atomically(file, lambda open_file, k=kind, m=more: figure.savefig(open_file, format=k, **m))  # type: ignore[misc]
        except OSError as error:
            raise UserError(f"{file}: cannot be written ({error}); choose another folder") from error
        written.append(file)
    return written
