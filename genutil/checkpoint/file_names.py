"""Names of the checkpoint files of a training, and the keys of their content."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
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
        layout: entries as in files of the published graph networks (`graph`) or ResNets (`resnet`).
        extra_files: other files of the training in the same folder.
        convert_settings: converts the settings in files of earlier versions; None: they stay.
    """

    last: str = "last.pt"
    best: str = "best.pt"
    first: str | None = "init.pt"
    numbered: str = "epoch_{}.pt"
    layout: Literal["graph", "resnet"] = "graph"
    extra_files: tuple[str, ...] = ()
    convert_settings: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None

    def number(self, name: str) -> int | None:
        """The epoch of a numbered file; None for others."""
        head, _, tail = self.numbered.partition("{}")
        match = re.fullmatch(rf"{re.escape(head)}(\d+){re.escape(tail)}", name)
        return int(match[1]) if match else None

    def is_checkpoint(self, name: str) -> bool:
        """Whether a training writes files of this name."""
        names = (self.last, self.best, self.first, *self.extra_files)
        return name in names or self.number(name) is not None

    def content(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A training's state in the layout of its files."""
        return to_resnet_keys(state) if self.layout == "resnet" else dict(state)


GRAPH_FORMAT = CheckpointFormat()
"""As the published graph networks have them."""
RESNET_FORMAT = CheckpointFormat(
    last="checkpoint.pth.tar",
    best="model_best.pth.tar",
    first=None,
    numbered="checkpoint-{}.pth.tar",
    layout="resnet",
)
"""As the published ResNets have them."""


def format_named(checkpoint_format: str) -> CheckpointFormat:
    """Names and layout by the experiment's `checkpoint_format`."""
    return {"graph": GRAPH_FORMAT, "resnet": RESNET_FORMAT}[checkpoint_format]


def to_resnet_keys(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state with the keys `state_dict`, `best_prec1`, and `epoch`: the next one to train, from 0."""
    content = {_RESNET_KEYS.get(key, key): value for key, value in state.items() if key != "last_epoch"}
    return {**content, "epoch": state["last_epoch"] + 1}


def from_resnet_keys(content: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `to_resnet_keys`; published files may lack some of the keys."""
    names = {resnet_key: key for key, resnet_key in _RESNET_KEYS.items()}
    state = {
        names.get(key, key): value
        for key, value in content.items()
        if key != "epoch" and key not in names.values()
    }
    # In files of other programs, such as timm and Lightning, `epoch` has another meaning.
    is_resnet = "format" in content or "best_prec1" in content
    if is_resnet and isinstance(content.get("epoch"), int):
        state["last_epoch"] = content["epoch"] - 1
    return state
