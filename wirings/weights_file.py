"""Files of weights: reading without executing anything in them, and loading into a network."""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wirings.checksum import digest
from wirings.errors import WiringError, first_line
from wirings.layers import WiredLayer
from wirings.legacy_pickle import stubs_for_published_files
from wirings.names import did_you_mean
from wirings.safetensors_file import read_safetensors
from wirings.weight_names import match_names

FORMAT_VERSION = 2
"""Version of this project's checkpoints. Files of version 1 have no checksum."""
_MAX_LISTED = 5
"""Differences that a message lists."""
_log = logging.getLogger(__name__)


def read_content(path: Path) -> Any:
    """The content of a file that torch.save or safetensors wrote, on the CPU.

    Nothing in the file is executed: anything but tensors, plain values and the objects of published files
    (see wirings.legacy_pickle) is refused. The checksum of files of this project is verified and left out.

    Raises:
        WiringError: the file is missing or damaged, is of another kind, holds more than plain values, or was
            written by a newer version of this project.
    """
    try:
        if not path.is_file():
            raise WiringError(f"{path}: {_missing(path)}")
        if path.suffix.lower() == ".safetensors":
            return _read_safetensors(path)
        with stubs_for_published_files():
            return _verified(torch.load(path, map_location="cpu", weights_only=True), path)
    except WiringError:
        raise
    except PermissionError as error:
        raise WiringError(
            f"{path}: cannot be read ({error.strerror}); change its permissions, or name another file"
        ) from error
    except pickle.UnpicklingError as error:
        raise WiringError(f"{path}: {_refused(error)}") from error
    except MemoryError as error:
        raise WiringError(
            f"{path}: is damaged, or needs more memory than this process may use; take another file"
        ) from error
    except Exception as error:  # torch.load documents no exception types for other files
        raise WiringError(
            f"{path}: is damaged or no checkpoint ({first_line(error)}); take another file"
        ) from error


def find_weights(content: Any, path: Path) -> tuple[dict[str, Any], str]:
    """The state dict in a file's content, and its key.

    Args:
        content: a mapping with the weights under `model` or `state_dict` (the first that has tensors), a
            plain state dict (key ""), or a mapping with a single mapping of tensors.
        path: the file, for messages.

    Raises:
        WiringError: there is none, or several.
    """
    if isinstance(content, Mapping) and content:
        keys = [key for key in ("model", "state_dict") if isinstance(content.get(key), Mapping)]
        for key in sorted(keys, key=lambda key: not _has_tensors(content[key])):
            return dict(content[key]), key
        if are_weights(content):
            return dict(content), ""
        candidates = [key for key, value in content.items() if are_weights(value)]
        if len(candidates) == 1:
            return dict(content[candidates[0]]), str(candidates[0])
        if candidates:
            names = ", ".join(map(str, candidates))
            raise WiringError(
                f"{path}: has several state dicts ({names}) and none under `model` or `state_dict`; save the "
                "one to load in its own file"
            )
    raise WiringError(f"{path}: is not a checkpoint: it has no weights under `model` or `state_dict`")


def are_weights(value: Any) -> bool:
    """Whether this is a state dict: tensors by name."""
    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, Tensor) for v in value.values())


def _has_tensors(value: Mapping[str, Any]) -> bool:
    return any(isinstance(v, Tensor) for v in value.values())


def _verified(content: Any, path: Path) -> Any:
    """The content without its checksum, which is verified, in files of this project.

    Files of other programs may have a `format` or a `checksum` of another meaning; that `format` is left out,
    since it marks the files of this project.
    """
    if not isinstance(content, dict) or are_weights(content):
        return content
    version, checksum = content.get("format"), content.get("checksum")
    # A file whose `format` is damaged still has the SHA-256.
    if not isinstance(version, int) and not re.fullmatch("[0-9a-f]{64}", str(checksum)):
        return {key: value for key, value in content.items() if key != "format"}
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise WiringError(
            f"{path}: was written by a newer version of this project (format {version}, this one reads up to "
            f"{FORMAT_VERSION}); use that version"
        )
    if version == 1 and checksum is None:
        return content
    content = {key: value for key, value in content.items() if key != "checksum"}
    try:
        is_whole = digest(content) == checksum
    except TypeError:
        is_whole = False
    if not is_whole:
        raise WiringError(f"{path}: is damaged: its content does not match its checksum; use another file")
    return content


def check_fit(weights: Mapping[str, Any], expected: Mapping[str, Tensor], path: Path | str) -> None:
    """Refuse weights that are not those of a network.

    Args:
        weights: of the file, by name.
        expected: the state dict of the network.
        path: the file, for messages.

    Raises:
        WiringError: a name, shape or type differs. The message lists the first ones.
    """
    differences = [f"misses {name}" for name in expected if name not in weights]
    differences += [f"has {name}, which the model lacks" for name in weights if name not in expected]
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            differences.append(f"{name} is not a tensor")
        elif name in expected and value.shape != expected[name].shape:
            shapes = f"{list(value.shape)}, the model's is {list(expected[name].shape)}"
            differences.append(f"{name} has shape {shapes}")
        elif name in expected and _kind(value) != _kind(expected[name]):
            differences.append(f"{name} is {_kind(value)}, the model's is {_kind(expected[name])}")
    if differences:
        num_others = len(differences) - _MAX_LISTED
        listed = differences[:_MAX_LISTED] + (
            [f"and {num_others} more differences"] if num_others > 0 else []
        )
        raise WiringError(
            "\n  ".join([f"{path}: does not fit this network; check its name and its sizes:", *listed])
        )


def match_and_load_weights(model: nn.Module, weights: Mapping[str, Any], path: Path, key: str = "") -> None:
    """Load weights that were read from a file into a network. If they do not fit, the network is unchanged.

    Prefixes that wrappers have added to all names (`module.`, `_orig_mod.`) are removed, and one line is
    logged: see wirings.weight_names. Weights of an unwired network fit, see `load_matched_weights`.

    Args:
        model: the network.
        weights: result of find_weights.
        path: the file, for messages.
        key: of the weights in the file.

    Raises:
        WiringError: names, shapes or types differ from those of the network.
    """
    matched = match_names(weights, model.state_dict())
    changes = [f"loaded the weights under '{key}'"] if key not in ("", "model", "state_dict") else []
    if changes or matched.changes:
        _log.warning("%s: %s", path, "; ".join([*changes, *matched.changes]))
    load_matched_weights(model, matched.weights, path)


def load_matched_weights(
    model: nn.Module, weights: Mapping[str, Any], path: Path | str, optional: Collection[str] = ()
) -> None:
    """Load weights under the names of a network. If they do not fit, the network is unchanged.

    If they have no entries of any rule of a wired layer, since their network was not wired, the rules'
    buffers are unchanged, and their `freeze_wiring` is called.

    Args:
        model: the network.
        weights: by the names of the network.
        path: their file, for messages.
        optional: names that may be missing; the network then keeps its values.

    Raises:
        WiringError: names, shapes or types differ from those of the network.
    """
    expected = model.state_dict()
    rules = {f"{name}.wiring.": module.wiring for name, module in _wired_layers(model).items()}
    prefixes = tuple(rules)
    is_unwired = not any(name.startswith(prefixes) for name in weights)
    own_values = {
        name: value
        for name, value in expected.items()
        if name in optional or (is_unwired and name.startswith(prefixes))
    }
    check_fit({**own_values, **weights}, expected, path)
    model.load_state_dict({**own_values, **weights})
    for rule in rules.values() if is_unwired else ():
        rule.freeze_wiring()


def _wired_layers(model: nn.Module) -> dict[str, WiredLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, WiredLayer)}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        weights, metadata = read_safetensors(path)
    except (OSError, ValueError) as error:
        raise WiringError(
            f"{path}: is damaged or no .safetensors file ({error}); take another file"
        ) from error
    if metadata.get("format", "").startswith("wirings"):
        raise WiringError(
            f"{path}: is an exported network, without dead nodes and batch norms, so its weights do not "
            "fit the original network; use the checkpoint that was exported"
        )
    return dict(weights)


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
        return f"holds an object of {name}, which is not a plain weight; nothing of it was executed"
    return "is damaged, or holds more than plain weights; nothing of it was executed"


def _kind(value: Tensor) -> str:
    """Properties that must be equal when a tensor is loaded; the precision may differ."""
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        return f"a {value.layout} tensor of {value.dtype} on {value.device.type}"
    if value.is_complex():
        return "complex"
    return "real" if value.is_floating_point() else "integer"
