"""Checkpoint files: written whole, read without executing anything in them, checked before they are used."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genutil.atomic import write_atomically
from genutil.checksum import digest
from genutil.errors import CheckpointError
from genutil.layouts import from_resnet_keys
from genutil.problems import did_you_mean
from genutil.published import stubs_for_published_files

FORMAT = 2
"""Of the files written here: 1 had no checksum."""
_SHOWN = 5


@dataclass(frozen=True)
class CheckpointInfo:
    """Where a checkpoint stands.

    Attributes:
        epoch: last finished epoch, from 0; −1 before training; None where the file does not say.
        step: optimizer steps done; None where the file does not say.
        best_val: best validation accuracy so far; None where the file does not say.
        origin: written by this project (`native`), by the published code (`published`), or `weights` alone.
    """

    epoch: int | None
    step: int | None
    best_val: float | None
    origin: Literal["native", "published", "weights"]


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that at any moment `path` is whole: the old one, or the new one.

    Raises:
        CheckpointError: the file could not be written; an earlier one of this name is untouched.
    """
    content = {**state, "format": FORMAT}
    content["checksum"] = digest(content)
    try:
        write_atomically(path, lambda file: torch.save(content, file))
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
        raise CheckpointError(
            f"{path}: could not be written ({error}); free some space or choose another folder"
        ) from error


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint file on the CPU: a dict with the weights under `model`, in any layout.

    Nothing in the file is executed: anything but tensors, plain values and what published files hold is
    refused.

    Raises:
        CheckpointError: the file is missing, truncated, foreign, holds more than plain values, or its content
            does not fit its checksum.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"{path}: {_missing(path)}")
    try:
        with stubs_for_published_files():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_refused(error)}") from error
    except MemoryError:
        raise
    except Exception as error:  # torch.load promises no exception types for files that are no checkpoints
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"{path}: is damaged or no checkpoint ({reason}); take another file"
        raise CheckpointError(message) from error
    return _with_model(_checked(content, path), path)


def load_weights(path: str | Path, model: nn.Module) -> CheckpointInfo:
    """Put a checkpoint's weights into a model. A file that does not fit leaves the model as it was.

    Raises:
        CheckpointError: see read_checkpoint; or names, shapes or types differ from the model's.
    """
    return apply_weights(read_checkpoint(path), model, str(path))


def apply_weights(
    content: Mapping[str, Any], model: nn.Module, path: str, optional: Collection[str] = ()
) -> CheckpointInfo:
    """`load_weights` for content that has been read already.

    Args:
        content: what read_checkpoint gave.
        model: where the weights go.
        path: the file, for errors.
        optional: names that the file need not have; the model then keeps its own values.
    """
    weights, own = without_prefix(content["model"]), model.state_dict()
    weights = {**{name: own[name] for name in optional}, **weights}
    _check_fit(weights, own, path)
    info = describe(content, path)
    model.load_state_dict(weights)
    return info


def describe(content: Mapping[str, Any], path: str) -> CheckpointInfo:
    """What a checkpoint says of itself; `path` is named in errors.

    Raises:
        CheckpointError: a count or accuracy in it is no number.
    """
    if "format" in content:
        origin: Literal["native", "published", "weights"] = "native"
    else:
        origin = "published" if "optimizer" in content else "weights"
    epoch, step, best = (_number(content, key, path) for key in ("last_epoch", "iter", "best_val"))
    return CheckpointInfo(
        epoch=None if epoch is None else int(epoch),
        step=None if step is None else int(step),
        best_val=best,
        origin=origin,
    )


def _number(content: Mapping[str, Any], key: str, path: str) -> float | None:
    value = content.get(key)
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its {key} is no number but {str(value)[:50]!r}") from error


def _missing(path: Path) -> str:
    if path.is_dir():
        return "is a folder; name a checkpoint file in it"
    files = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"there is no such file{did_you_mean(path.name, files)}"


def _refused(error: Exception) -> str:
    text = str(error)
    marker = "Unsupported global: GLOBAL "
    if marker in text:
        name = text.split(marker)[1].split()[0]
        return f"holds an object of {name}, which is no plain weight; nothing of it was executed"
    return "is damaged, or holds more than plain weights; nothing of it was executed"


def _with_model(content: Any, path: Path) -> dict[str, Any]:
    if isinstance(content, Mapping) and content:
        if isinstance(content.get("model"), Mapping):
            return dict(content)
        if isinstance(content.get("state_dict"), Mapping):
            return from_resnet_keys(content)
        if all(isinstance(value, Tensor) for value in content.values()):
            return {"model": dict(content)}
    raise CheckpointError(f"{path}: is no checkpoint: it has no weights under `model` or `state_dict`")


def _checked(content: Any, path: Path) -> Any:
    """The content without its checksum. Published files and those of format 1 have none."""
    if not isinstance(content, dict):
        return content
    checksum = content.pop("checksum", None)
    if checksum is None and content.get("format") in (None, 1):
        return content
    try:
        is_whole = digest(content) == checksum
    except TypeError:
        is_whole = False
    if not is_whole:
        raise CheckpointError(f"{path}: is damaged: its content does not fit its checksum; take another file")
    return content


def without_prefix(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the `module.` that DataParallel and its kin put before them."""
    wrapped = bool(weights) and all(str(name).startswith("module.") for name in weights)
    return {str(name).removeprefix("module.") if wrapped else name: value for name, value in weights.items()}


def _kind(value: Tensor) -> str:
    """What must not change when a tensor is loaded; the width of its numbers may."""
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        return f"a {value.layout} tensor of {value.dtype} on {value.device.type}"
    if value.is_complex():
        return "complex"
    return "real" if value.is_floating_point() else "integer"


def _check_fit(weights: Mapping[str, Any], expected: Mapping[str, Tensor], path: str) -> None:
    differences = [f"misses {name}" for name in expected if name not in weights]
    differences += [f"has {name}, which the model lacks" for name in weights if name not in expected]
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            differences.append(f"{name} is no tensor")
        elif name in expected and value.shape != expected[name].shape:
            shapes = f"{list(value.shape)}, the model's is {list(expected[name].shape)}"
            differences.append(f"{name} has shape {shapes}")
        elif name in expected and _kind(value) != _kind(expected[name]):
            differences.append(f"{name} is {_kind(value)}, the model's is {_kind(expected[name])}")
    if differences:
        more = len(differences) - _SHOWN
        listed = differences[:_SHOWN] + ([f"and {more} more differences"] if more > 0 else [])
        raise CheckpointError(
            "\n  ".join(
                [f"{path}: does not fit this network; check which one is asked for, and its sizes:", *listed]
            )
        )
