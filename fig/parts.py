"""The metrics of a training in all its parts: one that was stopped and gone on with has several folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fig.runs import start_of
from genutil.errors import UserError
from genutil.experiments import differences


def read_metrics(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, with those of the parts before it where a stopped training was gone on
    with: of the same name, seed and settings in a folder beside. Where parts tell of one epoch, the later one
    counts.

    Raises:
        UserError: its own cannot be read.
    """
    folder = Path(result["folder"])
    lines = _lines(folder)
    for part in _earlier(folder, result):
        first = min((line["epoch"] for line in lines), default=0)
        if not first:
            break
        lines = [line for line in _lines(part) if line["epoch"] < first] + lines
    return lines


def whole_time(result: Mapping[str, Any]) -> float:
    """Seconds of a training with all its parts. Of earlier ones, the epochs count that it went on after.

    Raises:
        UserError: its metrics cannot be read.
    """
    own = min((line["epoch"] for line in _lines(Path(result["folder"]))), default=0)
    before = [float(line.get("epoch_time", 0.0)) for line in read_metrics(result) if line["epoch"] < own]
    return float(result["wall_time"]) + sum(before)


def _lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [{**line, "epoch": int(line["epoch"])} for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def _earlier(folder: Path, result: Mapping[str, Any]) -> list[Path]:
    """Folders of the same training that began before, the last one first."""
    own = start_of(folder, str(result["name"]))
    found = []
    for path in folder.parent.iterdir() if own else ():
        start = start_of(path, str(result["name"]))
        if own and start and start < own and _is_part(path, result["config"]):
            found.append((start, path))
    return [path for _, path in sorted(found, reverse=True)]


def _is_part(path: Path, config: Mapping[str, Any]) -> bool:
    try:
        settings = yaml.safe_load((path / "config.yml").read_text())
        return (path / "metrics.jsonl").is_file() and not differences(settings, config)
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError):
        return False
