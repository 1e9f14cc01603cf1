"""Identity of an experiment: the settings that decide its results, compared and hashed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from genutil.config.schema import keys_of, schema

Differences = dict[str, tuple[Any, Any]]
"""Both values of each key whose values differ."""
_CHOSEN_BY_EVALUATIONS = frozenset(
    {"topk", "batch_size", "num_epochs", "amp", "max_batches", "validation", "data_backend"}
)
"""Keys of a training that an evaluation of its weights may set to other values."""


def deciding_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide results (roles `result` and `order`), as JSON represents them.

    A missing key has its default: it was added after the version that wrote the settings.
    """
    fields = schema()
    decided = {
        key: settings[key] if key in settings else fields[key].get_default(call_default_factory=True)
        for key in keys_of("result", "order")
        if key in settings or not fields[key].is_required()
    }
    return json.loads(json.dumps(decided))  # type: ignore[no-any-return]


def identity(settings: Mapping[str, Any]) -> str:
    """Hash of the settings that decide results: equal for runs of one experiment with one seed.

    Defaults do not count, so that a key that is added to the schema changes no hash.

    Returns:
        16 hexadecimal digits.
    """
    defaults = deciding_settings({})
    decided = {
        key: value
        for key, value in deciding_settings(settings).items()
        if key not in defaults or value != defaults[key]
    }
    return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()[:16]


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Differences:
    """The settings that decide results and differ."""
    first, second = deciding_settings(one), deciding_settings(other)
    pairs = {key: (first.get(key), second.get(key)) for key in [*first, *second]}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def differences_to_continue(
    before: Mapping[str, Any], now: Mapping[str, Any], begun: int, depends_on_num_epochs: bool
) -> Differences:
    """The `differences` that keep a training's checkpoint from being one of this experiment.

    Another number of epochs does not count if the training up to the checkpoint does not depend on it, and
    does not go beyond it.

    Args:
        before, now: settings of the training that wrote the checkpoint, and of this one.
        begun: epochs that the checkpoint's training has begun.
        depends_on_num_epochs: whether the training depends on `num_epochs` from the first step.
    """
    pairs = differences(before, now)
    if not depends_on_num_epochs and begun <= now["num_epochs"]:
        pairs.pop("num_epochs", None)
    return pairs


def differences_to_evaluate(before: Mapping[str, Any], now: Mapping[str, Any]) -> Differences:
    """The `differences` by which the weights that are evaluated belong to another experiment."""
    return {key: pair for key, pair in differences(before, now).items() if key not in _CHOSEN_BY_EVALUATIONS}


def differences_without_seed(one: Mapping[str, Any], other: Mapping[str, Any]) -> Differences:
    """`differences` of two seeds of an experiment, without the seeds and the values that follow from them.

    A value follows from the seed if it is a text that holds the seed where the other text holds the other
    seed, as a path with `{seed}` does.
    """
    seeds = (str(one.get("seed")), str(other.get("seed")))
    return {
        key: pair
        for key, pair in differences(one, other).items()
        if key != "seed" and not _follows_from_seed(*pair, seeds)
    }


def _follows_from_seed(one: Any, other: Any, seeds: tuple[str, str]) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            _follows_from_seed(one[key], other[key], seeds) for key in one
        )
    if not isinstance(one, str) or not isinstance(other, str):
        return bool(one == other)
    words = [re.split(r"(\d+)", text) for text in (one, other)]
    pairs = list(zip(*words, strict=False))
    return len(words[0]) == len(words[1]) and all(a == b or (a, b) == seeds for a, b in pairs)
