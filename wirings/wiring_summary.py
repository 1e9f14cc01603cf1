"""Summary of a wiring: edges of each layer, as numbers and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LayerSummary:
    """Edges of one layer.

    Attributes:
        name: of its weight in the state dict.
        rule: name of the rule, such as `dnw`; of a rule of your own, the name of its class.
        potential: entries of the weight.
        in_use: edges in use.
        effective: those of them on a path from the network's input to its output; None: not known.
    """

    name: str
    rule: str
    potential: int
    in_use: int
    effective: int | None = None

    @property
    def density(self) -> float:
        """Fraction of the potential edges that is in use."""
        return self.in_use / self.potential if self.potential else 0.0


@dataclass(frozen=True)
class WiringSummary:
    """Edges of a network, layer by layer; as text, a Markdown table.

    Attributes:
        layers: the wired ones.
        dense: names of weights of convolutions and linear layers that are not wired.
    """

    layers: tuple[LayerSummary, ...]
    dense: tuple[str, ...]

    @property
    def total(self) -> LayerSummary:
        """All layers together."""
        potential = sum(layer.potential for layer in self.layers)
        in_use = sum(layer.in_use for layer in self.layers)
        effective = [layer.effective for layer in self.layers if layer.effective is not None]
        is_known = bool(effective) and len(effective) == len(self.layers)
        return LayerSummary("total", "", potential, in_use, sum(effective) if is_known else None)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("layer", "rule", "potential", "in use", "density", "effective")]
        rows += [_cells(layer) for layer in (*self.layers, self.total)]
        if all(layer.effective is None for layer in self.layers):
            rows = [row[:-1] for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [_line(row, widths) for row in rows]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        if self.dense:
            lines += ["", f"dense: {', '.join(self.dense)}"]
        return "\n".join(lines)


def _cells(layer: LayerSummary) -> tuple[str, ...]:
    effective = "" if layer.effective is None else f"{layer.effective:,}"
    return (
        *(layer.name, layer.rule, f"{layer.potential:,}", f"{layer.in_use:,}"),
        *(f"{layer.density:.2%}", effective),
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    sides = [cell.ljust if number < 2 else cell.rjust for number, cell in enumerate(cells)]
    return "| " + " | ".join(side(width) for side, width in zip(sides, widths, strict=True)) + " |"
