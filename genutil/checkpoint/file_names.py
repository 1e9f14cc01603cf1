"""Names of the checkpoint files of a training, and the keys in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

_RESNET_KEYS = {"model": "state_dict", "best_val": "best_prec1"}


@dataclass(frozen=True)
class CheckpointFormat:
    """Names and layout of a training's checkpoint files.

    Attributes:
        last: the one that training is resumed from; written after each epoch.
        best: the best one so far.
        first: written before training; None: not at all.
        numbered: file of one epoch, with {} for its number.
        layout: keys as in files of the published graph networks (`graph`) or ResNets (`resnet`).
    """

    last: str = "last.pt"
    best: str = "best.pt"
    first: str | None = "init.pt"
    numbered: str = "epoch_{}.pt"
    layout: Literal["graph", "resnet"] = "graph"

    def number(self, name: str) -> int | None:
        """The epoch of a numbered file; None for others."""
        head, _, tail = self.numbered.partition("{}")
        match = re.fullmatch(rf"{re.escape(head)}(\d+){re.escape(tail)}", name)
        return int(match[1]) if match else None

    def is_checkpoint(self, name: str) -> bool:
        """Whether a training writes files of this name."""
        return name in (self.last, self.best, self.first) or self.number(name) is not None

    def to_layout(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The state of a training under the keys of this layout."""
        return to_resnet_keys(state) if self.layout == "resnet" else dict(state)


GRAPH_FORMAT = CheckpointFormat()
"""Files of the published graph networks."""
RESNET_FORMAT = CheckpointFormat(
    last="checkpoint.pth.tar",
    best="model_best.pth.tar",
    first=None,
    numbered="checkpoint-{}.pth.tar",
    layout="resnet",
)
"""Files of the published ResNets."""


def format_named(checkpoint_format: str) -> CheckpointFormat:
    """Names and layout by the key `checkpoint_format` of an experiment."""
    return {"graph": GRAPH_FORMAT, "resnet": RESNET_FORMAT}[checkpoint_format]


def to_resnet_keys(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state with the keys `state_dict`, `best_prec1`, and `epoch`: the next one to train, from 0."""
    renamed = {_RESNET_KEYS.get(key, key): value for key, value in state.items() if key != "last_epoch"}
    return {**renamed, "epoch": state["last_epoch"] + 1}


def from_resnet_keys(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `to_resnet_keys`; published files may lack some of the keys."""
    key_of = {resnet_key: key for key, resnet_key in _RESNET_KEYS.items()}
    state = {
        key_of.get(key, key): value
        for key, value in checkpoint.items()
        if key != "epoch" and key not in _RESNET_KEYS
    }
    # In files of other programs, such as timm and Lightning, `epoch` has another meaning.
    is_resnet = "format" in checkpoint or "best_prec1" in checkpoint
    if is_resnet and isinstance(checkpoint.get("epoch"), int):
        state["last_epoch"] = checkpoint["epoch"] - 1
    return state
