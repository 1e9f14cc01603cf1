"""Report of the removal of channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wirings.markdown import markdown_table


@dataclass(frozen=True)
class LayerChannels:
    """Channels of one convolution or linear layer before and after the removal.

    Attributes:
        name: of the layer in the network.
        before, after: channels of its output.
        constant: remaining channels that are the same number for all inputs.
        macs_before, macs_after: multiply-accumulates for one input, zero weights among them.
        reason: one sentence, why channels remain without being needed; "" if there is no such reason.
    """

    name: str
    before: int
    after: int
    constant: int
    macs_before: int
    macs_after: int
    reason: str


@dataclass(frozen=True)
class ChannelReport:
    """Channels of a network before and after the removal. Prints as a Markdown table.

    Attributes:
        layers: convolutions and linear layers, in the order in which they run.
        params_before, params_after: parameters of the whole network, batch norms among them.
        reason: why nothing was removed, one sentence; "" if channels were removed.
    """

    layers: tuple[LayerChannels, ...]
    params_before: int
    params_after: int
    reason: str = ""

    @property
    def macs_before(self) -> int:
        """Multiply-accumulates of all layers for one input; 0 if nothing was removed."""
        return sum(layer.macs_before for layer in self.layers)

    @property
    def macs_after(self) -> int:
        """Multiply-accumulates of the smaller network."""
        return sum(layer.macs_after for layer in self.layers)

    def __str__(self) -> str:
        if self.reason:
            return f"No channels were removed: {self.reason}."
        header = ("layer", "channels", "left", "of these constant", "MACs", "left", "why channels stay")
        counts = [
            (layer.before, layer.after, layer.constant, layer.macs_before, layer.macs_after)
            for layer in self.layers
        ]
        rows = [_cells(layer.name, row, layer.reason) for layer, row in zip(self.layers, counts, strict=True)]
        totals = [sum(row[column] for row in counts) for column in range(5)]
        table = markdown_table(header, [*rows, _cells("total", totals, "")])
        return f"{table}\n\nParameters: {self.params_before:,} before, {self.params_after:,} after."


def _cells(name: str, counts: Sequence[int], reason: str) -> tuple[str, ...]:
    return (name, *(f"{count:,}" for count in counts), reason)
