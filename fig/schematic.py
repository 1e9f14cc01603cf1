"""The straight-through gradient in one picture: the forward pass uses the strongest edges, the gradient all.

    python -m fig.schematic [--output FILE]

Written: FILE.png and FILE.svg, by default `straight_through`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fig.style import DEAD, INK, NEW, POSITIVE, pyplot_in_style, save
from genutil.exit_codes import exit_status

_SOURCES = ((0.0, 2.0), (0.0, 1.0), (0.0, 0.0))
_TARGET = (2.0, 1.0)
_MAGNITUDES = (0.9, 0.4, 0.7)
"""Of the three potential edges, of which two are in use."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("straight_through"), help="without the suffix")

    def run() -> int:
        options = parser.parse_args(argv)
        with pyplot_in_style() as pyplot:
            for file in save(draw(pyplot), options.output):
                print(file)
        return 0

    return exit_status(run)


def draw(pyplot: Any) -> Any:
    """The figure: forward pass, backward pass, and a swap after the update."""
    figure, axes = pyplot.subplots(1, 3, figsize=(10.5, 3.4))
    in_use = sorted(range(3), key=lambda edge: -_MAGNITUDES[edge])[:2]
    forward, backward, after = axes
    _graph(forward, "forward: the 2 strongest edges", in_use, _MAGNITUDES, POSITIVE)
    _note(forward, r"$I_v = \sum_{(u,v)\in E}\, w_{uv}\, Z_u$")
    _graph(backward, "backward: every edge gets its gradient", range(3), (0.6, 0.6, 0.6), NEW, reverse=True)
    _note(
        backward,
        r"$w_{uv} \leftarrow w_{uv} + \langle Z_u,\, -\alpha\, \partial L / \partial I_v\rangle$"
        "\nthe gradient of $Z_u$ flows through edges in use only",
    )
    _graph(after, "after the update: a swap", (0, 1), (0.9, 0.75, 0.3), POSITIVE, new_edge=1)
    _note(after, r"$|\tilde w_2| > |\tilde w_3|$: edge 2 takes the place of edge 3")
    return figure


def _graph(
    axis: Any, title: str, in_use: Sequence[int] | range, widths: Sequence[float], color: str,
    reverse: bool = False, new_edge: int | None = None,
) -> None:  # fmt: skip
    for edge, source in enumerate(_SOURCES):
        used = edge in in_use
        ends = (_TARGET, source) if reverse else (source, _TARGET)
        arrow = {
            "arrowstyle": "-|>" if used else "-", "shrinkA": 13, "shrinkB": 13,
            "linewidth": 4 * widths[edge],
            "color": (NEW if edge == new_edge else color) if used else DEAD,
            "linestyle": "-" if used and not (reverse and edge == 1) else "--",
        }  # fmt: skip
        axis.annotate("", xy=ends[1], xytext=ends[0], arrowprops=arrow)
        name = rf"$w_{edge + 1}$"
        axis.text(0.75, source[1] * 0.62 + 0.38 + 0.14, name, color=INK, fontsize=11)
    for node, position in enumerate((*_SOURCES, _TARGET)):
        axis.plot(*position, marker="o", markersize=22, color="white", markeredgecolor=INK, linestyle="")
        label = "$v$" if node == 3 else rf"$Z_{node + 1}$"
        axis.text(*position, label, ha="center", va="center", fontsize=10)
    axis.set(xlim=(-0.4, 2.5), ylim=(-1.1, 2.4), title=title)
    axis.axis("off")


def _note(axis: Any, text: str) -> None:
    axis.text(1.0, -0.55, text, ha="center", va="top", fontsize=10)


if __name__ == "__main__":
    sys.exit(main())
