"""What the checkpoint files of a training are called, and under which keys they hold what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

_RESNET_KEYS = {"model": "state_dict", "best_val": "best_prec1"}


@dataclass(frozen=True)
class CheckpointNames:
    """Names and keys of a training's checkpoint files.

    Attributes:
        last: where the training goes on from; written after each epoch.
        best: the best one so far.
        first: written before training; None: not at all.
        numbered: of one epoch, with {} for its number.
        keys: as the published graph networks have them (`graph`), or the published ResNets (`resnet`).
        extra_files: further files of the training that are kept with the checkpoints.
    """

    last: str = "last.pt"
    best: str = "best.pt"
    first: str | None = "init.pt"
    numbered: str = "epoch_{}.pt"
    keys: Literal["graph", "resnet"] = "graph"
    extra_files: tuple[str, ...] = ()

    def number(self, name: str) -> int | None:
        """The epoch of a numbered file; None for others."""
        head, _, tail = self.numbered.partition("{}")
        match = re.fullmatch(rf"{re.escape(head)}(\d+){re.escape(tail)}", name)
        return int(match[1]) if match else None

    def is_checkpoint(self, name: str) -> bool:
        """Whether a training of this layout writes files of this name."""
        own = (self.last, self.best, self.first, *self.extra_files)
        return name in own or self.number(name) is not None

    def content(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A training's state under the keys of its files."""
        return to_resnet_keys(state) if self.keys == "resnet" else dict(state)


GRAPH_NAMES = CheckpointNames()
"""Of the experiments of `runner.py`."""


def to_resnet_keys(state: Mapping[str, Any]) -> dict[str, Any]:
    """`state_dict`, `best_prec1`, and `epoch`, which is the next one to train, counted from 0."""
    content = {_RESNET_KEYS.get(key, key): value for key, value in state.items() if key != "last_epoch"}
    return {**content, "epoch": state["last_epoch"] + 1}


def from_resnet_keys(content: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse; published files also lack some of the keys."""
    names = {theirs: ours for ours, theirs in _RESNET_KEYS.items()}
    state = {names.get(key, key): value for key, value in content.items() if key != "epoch"}
    # Elsewhere, such as in files of Lightning, `epoch` is another number.
    known = not {"format", "arch", "best_prec1", "optimizer"}.isdisjoint(content)
    if known and isinstance(content.get("epoch"), int):
        state["last_epoch"] = content["epoch"] - 1
    return state
