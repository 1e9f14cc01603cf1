"""Which runs are of one experiment: all settings are equal but those that do not decide results."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from genutil.config.schema import EvaluationKeys, schema

INDIFFERENT = frozenset(
    {
        "seeds", "resume", "data_dir", "save_dir", "log_dir", "log_interval", "gpus", "processes", "workers",
        "max_restarts", "timeout", "keep_last", "checkpoint_interval", "checkpoint_interval_steps",
        "record_wiring", "record_interval", "skip_profiling", "threads",
        "cuda_graph",
    }
)  # fmt: skip
"""Keys that do not decide a training's results."""
_READ_BY_EVALUATIONS = frozenset(EvaluationKeys.model_fields) | {
    "name", "batch_size", "num_epochs", "amp", "compile", "deterministic", "skip_corrupt",
}  # fmt: skip
"""Keys of an evaluation that may differ from those of the training whose weights it takes."""


def deciding_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide results, as JSON would give them back.

    A key that is missing has its default: it came after the version that wrote the settings.
    """
    defaults = {
        key: field.get_default(call_default_factory=True)
        for key, field in schema().items()
        if not field.is_required()
    }
    kept = {key: value for key, value in {**defaults, **settings}.items() if key not in INDIFFERENT}
    return json.loads(json.dumps(kept))  # type: ignore[no-any-return]


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The deciding_settings keys whose values differ, with both values."""
    first, second = deciding_settings(one), deciding_settings(other)
    pairs = {key: (first.get(key), second.get(key)) for key in [*first, *second]}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def differences_to_continue(
    before: Mapping[str, Any], now: Mapping[str, Any], begun: int, reads_length: bool
) -> dict[str, tuple[Any, Any]]:
    """The `differences` that keep a training's checkpoint from being one of this experiment.

    The name decides nothing. Another number of epochs is no difference if the training up to the checkpoint
    does not depend on it, and does not go beyond it.

    Args:
        before, now: settings of the training that wrote the checkpoint, and of this one.
        begun: epochs that the checkpoint's training has begun.
        reads_length: whether a part of the experiment, such as its schedule, takes `num_epochs`.
    """
    found = differences(before, now)
    found.pop("name", None)
    if not reads_length and begun <= now["num_epochs"]:
        found.pop("num_epochs", None)
    return found


def differences_to_evaluate(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The `differences` by which weights are of another experiment than the evaluation says."""
    return {key: pair for key, pair in differences(before, now).items() if key not in _READ_BY_EVALUATIONS}


def differences_without_seed(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """`differences` of two seeds of an experiment: names, seeds, and what follows from the seed are left out.

    A value follows from the seed if it is a text that holds the seed where the other text holds the other
    seed, as a path with `{seed}` does.
    """
    seeds = (str(one.get("seed")), str(other.get("seed")))
    return {
        key: pair
        for key, pair in differences(one, other).items()
        if key not in ("name", "seed") and not _follows(*pair, seeds)
    }


def _follows(one: Any, other: Any, seeds: tuple[str, str]) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_follows(one[key], other[key], seeds) for key in one)
    if not isinstance(one, str) or not isinstance(other, str):
        return bool(one == other)
    parts = [re.split(r"(\d+)", text) for text in (one, other)]
    pairs = list(zip(*parts, strict=False))
    return len(parts[0]) == len(parts[1]) and all(a == b or (a, b) == seeds for a, b in pairs)
