"""Start records: the checkpoint that a run started from, and the settings that differed.

`results.json` and checkpoints contain it as `started_from`: None if the run started at the first step, else a
mapping of

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


def settings_in(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings in a checkpoint; None if there are none, or they are not plain values."""
    settings = checkpoint.get("config")
    try:
        plain = json.loads(json.dumps(settings))
    except (TypeError, ValueError, RecursionError):
        return None
    return plain if isinstance(plain, dict) and plain else None


def start_record(
    checkpoint: Mapping[str, Any],
    file: str,
    epoch: int | None,
    step: int | None,
    differences: Mapping[str, tuple[Any, Any]] | None,
) -> dict[str, Any]:
    """The record of a run that starts from a checkpoint.

    Args:
        checkpoint: what the file contains.
        file: its path.
        epoch, step: its last finished epoch, from 0, and its steps; None: not known.
        differences: the settings that differ, with their values in the file and in the run; None: not known.
    """
    pairs = None if differences is None else {key: list(pair) for key, pair in differences.items()}
    return {
        "file": file, "epoch": epoch, "step": step, "differences": pairs,
        "earlier": _changed_starts(checkpoint.get("started_from")),
    }  # fmt: skip


def record_in(checkpoint_or_results: Mapping[str, Any]) -> dict[str, Any] | None:
    """The start record in a checkpoint or in `results.json`; None: the run started at the first step."""
    record = checkpoint_or_results.get("started_from")
    if record is None or _is_record(record):
        return record
    return {**_UNKNOWN, "earlier": []}


def has_setting_changes(record: Mapping[str, Any] | None) -> bool:
    """Whether some of the run's training had other settings, or settings that are not known."""
    return bool(_changed_starts(record))


def setting_changes(record: Mapping[str, Any] | None) -> list[dict[str, list[Any]] | None]:
    """The differences of each start from a checkpoint of other settings, in the order of the starts."""
    return [start["differences"] for start in _changed_starts(record)]


def first_epoch_of_settings(record: Mapping[str, Any] | None) -> int:
    """The first epoch, from 0, that was trained with the settings of the run."""
    epochs = [start["epoch"] for start in _changed_starts(record)]
    return epochs[-1] + 1 if epochs and isinstance(epochs[-1], int) else 0


def _changed_starts(record: Any) -> list[dict[str, Any]]:
    """The starts from a checkpoint of other settings, or of settings that are not known, in their order."""
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
