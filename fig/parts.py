"""The metrics of a training in all its parts: one that was stopped and resumed has several folders."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fig.runs import start_of
from genutil.config.identity import differences_to_continue
from genutil.config.limited_yaml import load_yaml
from genutil.errors import UserError
from genutil.experiment_name import folder_name
from genutil.runs.run_folder import METRICS
from genutil.runs.start_record import first_epoch_of_settings, record_in
from genutil.text_files import parse_json, read_text

_log = logging.getLogger(__name__)


def read_metrics(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, with those of the parts before it where a stopped training was resumed:
    of the same name, seed and settings in a folder beside. Where parts have one epoch, the later one counts.
    An earlier part that cannot be read is left out with a warning, and so are epochs of other settings.

    Raises:
        UserError: its own cannot be read.
    """
    folder = Path(result["folder"])
    lines = _lines(folder)
    own = first_epoch_of_settings(record_in(result))
    for part in _earlier(folder, result):
        first = min((line["epoch"] for line in lines), default=0)
        if first <= own:
            break
        try:
            lines = [line for line in _lines(part) if own <= line["epoch"] < first] + lines
        except UserError as error:
            _log.warning("%s; this part of the training is left out", error)
    return lines


def whole_time(result: Mapping[str, Any]) -> float:
    """Seconds of a training with all its parts. Of earlier ones, the epochs count that it went on after.

    Raises:
        UserError: its metrics cannot be read.
    """
    own = min((line["epoch"] for line in _lines(Path(result["folder"]))), default=0)
    before = [line["epoch_time"] for line in read_metrics(result) if line["epoch"] < own]
    return float(result["wall_time"]) + float(sum(before))


def _lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / METRICS
    try:
        lines = [parse_json(line) for line in read_text(path).splitlines()]
        return [
            {**line, "epoch": int(line["epoch"]), "epoch_time": float(line.get("epoch_time", 0.0))}
            for line in lines
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def _earlier(folder: Path, result: Mapping[str, Any]) -> list[Path]:
    """Folders of the same training that began before, the last one first."""
    name = folder_name(str(result["name"]))
    own = start_of(folder, name)
    found = []
    for path in folder.parent.iterdir() if own else ():
        start = start_of(path, name)
        if own and start and start < own and _is_part(path, result["config"]):
            found.append((start, path))
    return [path for _, path in sorted(found, reverse=True)]


def _is_part(path: Path, config: Mapping[str, Any]) -> bool:
    try:
        settings = load_yaml(read_text(path / "config.yml"))
        depends_on_length = config["lr_scheduler"] not in ("multistep", "exp_decaying")
        others = differences_to_continue(settings, config, 0, depends_on_length)
        return (path / METRICS).is_file() and not others
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
