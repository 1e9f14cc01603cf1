"""Which runs are of one experiment: all settings are equal but those that do not decide results."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from genutil.schema import schema

_PLACES = frozenset(
    {
        "seeds", "resume", "data_dir", "save_dir", "log_dir", "log_interval", "gpus", "processes", "workers",
        "max_restarts", "timeout", "keep_last", "checkpoint_interval", "checkpoint_interval_steps",
        "record_wiring", "record_interval", "skip_profiling",
    }
)  # fmt: skip
"""Keys that do not decide a training's results."""


def deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide results, as JSON would give them back.

    A key that is missing has its default: it came after the version that wrote the settings.
    """
    defaults = {
        key: field.get_default(call_default_factory=True)
        for key, field in schema().items()
        if not field.is_required()
    }
    kept = {key: value for key, value in {**defaults, **settings}.items() if key not in _PLACES}
    return json.loads(json.dumps(kept))  # type: ignore[no-any-return]


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The deciding keys whose values differ, with both values."""
    first, second = deciding(one), deciding(other)
    pairs = {key: (first.get(key), second.get(key)) for key in [*first, *second]}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def differences_beyond_seeds(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
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
