"""Checkpoint files: written atomically, read without executing code, checked before use."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from genutil.checkpoint.file_names import from_resnet_keys
from genutil.exceptions import CheckpointError
from wirings.checksum import digest
from wirings.errors import WiringError
from wirings.files import write_atomically
from wirings.weight_names import MatchedWeights, match_names
from wirings.weights_file import FORMAT_VERSION, find_weights, load_matched_weights, read_content

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointInfo:
    """Progress of a checkpoint, and the program that wrote it.

    Attributes:
        epoch: last finished epoch, from 0; −1 before training; None: not known.
        step: optimizer steps done; None: not known.
        best_val: best validation accuracy so far; None: not known.
        origin: `native`: written by this project; `published`: by the published code; `weights`: only weights
            are known.
    """

    epoch: int | None
    step: int | None
    best_val: float | None
    origin: Literal["native", "published", "weights"]


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: at any moment, `path` is the complete old or new file.

    Raises:
        CheckpointError: the file could not be written; an earlier one of this name is untouched.
    """
    checkpoint = {**state, "format": FORMAT_VERSION}
    checkpoint["checksum"] = digest(checkpoint)
    try:
        write_atomically(path, lambda file: torch.save(checkpoint, file))
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
        raise CheckpointError(
            f"{path}: could not be written ({error}); free some space or choose another folder"
        ) from error


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file of any layout to the CPU.

    Supported are files of this project, published ones, plain state dicts, state dicts under `state_dict` or
    as the only mapping of tensors in the file, and `.safetensors` files with a state dict. If the weights are
    not under `model` or `state_dict`, only they are read; `weights_under` is then their key, "" for a plain
    state dict.

    Nothing in the file is executed: everything but tensors, plain values and the objects of published files
    is refused.

    Returns:
        The checkpoint: a dict with the keys of `Trainer.state_dict`, the weights under `model`, and the
        metadata of the run. Other files than those of this project lack some of the keys.

    Raises:
        CheckpointError: the file is missing, damaged or no checkpoint, contains other objects than plain
            values, or does not match its checksum.
    """
    path = Path(path).expanduser()
    with _as_checkpoint_errors():
        content = read_content(path)
        weights, key = find_weights(content, path)
    if key == "model":
        return dict(content)
    return from_resnet_keys(content) if key == "state_dict" else {"model": weights, "weights_under": key}


@contextlib.contextmanager
def _as_checkpoint_errors() -> Iterator[None]:
    """Converts a WiringError about a file into a CheckpointError."""
    try:
        yield
    except WiringError as error:
        raise CheckpointError(str(error)) from error


def load_weights(path: str | Path, model: nn.Module) -> CheckpointInfo:
    """Load a checkpoint's weights into a model. A file that does not fit leaves the model unchanged.

    Names that other programs have changed are matched (wirings.weight_names), with one line of log. Weights
    of an unwired network fit a wired one (wirings.weights_file.load_matched_weights).

    Raises:
        CheckpointError: see read_checkpoint; or names, shapes or types differ from the model's.
    """
    return apply_weights(read_checkpoint(path), model, str(path))


def apply_weights(
    checkpoint: Mapping[str, Any], model: nn.Module, path: str, optional: Collection[str] = ()
) -> CheckpointInfo:
    """`load_weights` for a checkpoint that has been read.

    Args:
        checkpoint: result of read_checkpoint.
        model: the network.
        path: its file, for messages.
        optional: names that may be missing in the file; the model then keeps its values.
    """
    info = checkpoint_info(checkpoint, path)
    matched = match_names(checkpoint["model"], model.state_dict())
    with _as_checkpoint_errors():
        load_matched_weights(model, matched.weights, path, optional)
    report_changes(checkpoint, matched, path)
    return info


def report_changes(checkpoint: Mapping[str, Any], matched: MatchedWeights, path: str) -> None:
    """Log how the names of a file's weights were changed, if they were.

    The prefix `module.` of published files is not logged.

    Args:
        checkpoint: result of read_checkpoint.
        matched: its weights.
        path: the file.
    """
    under = checkpoint.get("weights_under")
    if under is None and matched.prefix == "module." and len(matched.changes) == 1:
        return
    changes = [f"loaded the weights under '{under}'"] if under else []
    changes += matched.changes
    if changes:
        _log.warning("%s: %s", path, "; ".join(changes))


def checkpoint_info(checkpoint: Mapping[str, Any], path: str) -> CheckpointInfo:
    """Progress and origin of a checkpoint; `path` is its file, for messages.

    Raises:
        CheckpointError: a count or accuracy in it is not a number.
    """
    if "format" in checkpoint:
        origin: Literal["native", "published", "weights"] = "native"
    else:
        origin = "published" if "last_epoch" in checkpoint else "weights"
    epoch, step, best = (_number(checkpoint, key, path) for key in ("last_epoch", "iter", "best_val"))
    return CheckpointInfo(
        epoch=None if epoch is None else int(epoch),
        step=None if step is None else int(step),
        best_val=best,
        origin=origin,
    )


def _number(checkpoint: Mapping[str, Any], key: str, path: str) -> float | None:
    value = checkpoint.get(key)
    try:
        number = None if value is None else float(value)
        if key != "best_val" and number is not None:
            int(number)  # an error for what is not finite
        return number
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{path}: its {key} is not a number but {str(value)[:50]!r}") from error
