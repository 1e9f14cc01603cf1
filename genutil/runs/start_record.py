"""Start records: the first step, or the checkpoint, that a run started from, and its settings.

`results.json` and checkpoints contain it as `started_from`: None, or a mapping of

    file, epoch, step  the checkpoint: its path, its last finished epoch from 0, its steps; None: not known
    differences        {key: [value in the file, value of the run]} of the settings that decide results; None:
                       the file does not contain its settings
    earlier            the same four of each earlier start whose settings differed
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_UNKNOWN = {"file": None, "epoch": None, "step": None, "differences": None}


def settings_in(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings in a checkpoint; None if there are none, or they are not plain values."""
    config = content.get("config")
    try:
        plain = json.loads(json.dumps(config))
    except (TypeError, ValueError, RecursionError):
        return None
    return plain if isinstance(plain, dict) and plain else None


def start_record(
    content: Mapping[str, Any],
    file: str,
    epoch: int | None,
    step: int | None,
    differences: Mapping[str, tuple[Any, Any]] | None,
) -> dict[str, Any]:
    """The record of a run that starts from a checkpoint with this content."""
    pairs = None if differences is None else {key: list(pair) for key, pair in differences.items()}
    return {
        "file": file, "epoch": epoch, "step": step, "differences": pairs,
        "earlier": _starts_with_changes(content.get("started_from")),
    }  # fmt: skip


def record_in(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """The start record of a checkpoint or of results."""
    record = content.get("started_from")
    if record is None or _is_record(record):
        return record
    return {**_UNKNOWN, "earlier": []}


def has_setting_changes(record: Mapping[str, Any] | None) -> bool:
    """Whether some of the run's training had other settings, or settings that are not known."""
    return bool(_starts_with_changes(record))


def setting_changes(record: Mapping[str, Any] | None) -> list[dict[str, list[Any]] | None]:
    """The differences of each start from a checkpoint of other settings, in the order of the starts."""
    return [start["differences"] for start in _starts_with_changes(record)]


def first_epoch_of_settings(record: Mapping[str, Any] | None) -> int:
    """The first epoch, from 0, that was trained with the settings of the run."""
    epochs = [start["epoch"] for start in _starts_with_changes(record)]
    return epochs[-1] + 1 if epochs and isinstance(epochs[-1], int) else 0


def _starts_with_changes(record: Any) -> list[dict[str, Any]]:
    if record is None:
        return []
    if not _is_record(record):
        return [dict(_UNKNOWN)]
    starts = [*record["earlier"], {key: record[key] for key in _UNKNOWN}]
    return [start for start in starts if start["differences"] is None or start["differences"]]


def _is_record(record: Any) -> bool:
    """Whether a value has the form of a start record; files may have any content."""
    try:
        json.dumps(record)
    except (TypeError, ValueError, RecursionError):
        return False
    return (
        _is_start(record)
        and isinstance(record.get("earlier"), list)
        and all(map(_is_start, record["earlier"]))
    )


def _is_start(start: Any) -> bool:
    if not isinstance(start, Mapping) or not start.keys() >= _UNKNOWN.keys():
        return False
    pairs = start["differences"]
    return pairs is None or (
        isinstance(pairs, Mapping)
        and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs.values())
    )
