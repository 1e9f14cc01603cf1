"""What earlier runs have left: folders of checkpoints, results, and folders whose results are missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from genutil.config import Config
from genutil.config.identity import identity
from genutil.config.limited_yaml import load_yaml
from genutil.experiment_name import folder_name
from genutil.runs.run_folder import METRICS, RESULTS, run_settings
from genutil.runs.start_record import is_mixed, record_in
from genutil.text_files import parse_json, read_json, read_text
from wirings.files import write_atomically

_NOTE = ".run"
"""In a folder of checkpoints."""
_WIRING = "wiring.npz"
"""In a run's folder, with `record_wiring`."""


def checkpoints_of(config: Config) -> Path:
    """The folder of an experiment's checkpoints: `<save_dir>/<name>/`."""
    return Path(config.save_dir).expanduser() / folder_name(str(config.name))


def write_run_marker(checkpoints: Path, run_id: str, run: Path) -> None:
    """Note in a folder of checkpoints which run writes them, and where its reports are."""
    note = json.dumps({"run_id": run_id, "folder": str(run.resolve())})
    write_atomically(checkpoints / _NOTE, lambda file: file.write(note.encode()))


def read_run_marker(checkpoints: Path, run_id: str | None = None) -> Path | None:
    """The folder of the run that wrote checkpoints last; None if it is not known.

    Args:
        checkpoints: their folder.
        run_id: only of an earlier start of this run.
    """
    try:
        note = read_json(checkpoints / _NOTE)
        found = Path(note["folder"])
        return found if run_id is None or (run_id and note["run_id"] == run_id) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def finished_results(config: Config) -> dict[str, Any] | None:
    """`results.json` of a finished training with these settings, from its first step or from a checkpoint of
    the same settings; None if there is none.

    Where the wiring is to be recorded, a training without its record is not finished.
    """
    for path in sorted(Path(config.log_dir).expanduser().glob(f"*/{RESULTS}"), reverse=True):
        if config.record_wiring and not path.with_name(_WIRING).is_file():
            continue
        results = _finished(path, config)
        if results is not None and not is_mixed(record_in(results)):
            return results
    return None


def folder_of_results(config: Config, last: Path | None) -> Path | None:
    """The folder of a training's results, if it is finished; None if they are not found.

    Args:
        config: the settings of the training, which may have begun at a checkpoint of other settings.
        last: the folder of the run that wrote the checkpoints, where it is known.
    """
    beside = sorted(Path(config.log_dir).expanduser().glob(f"*/{RESULTS}"), reverse=True)
    paths = [*([last / RESULTS] if last else []), *beside]
    return next((path.parent for path in paths if _finished(path, config) is not None), None)


def folder_lacking_results(config: Config, last: Path | None) -> Path | None:
    """`last` if its training got to the end and was stopped before its results were written; else None.

    Args:
        config: the settings of the training.
        last: the folder of the run that wrote the checkpoints, where it is known.
    """
    if last is None or last.parent.resolve() != Path(config.log_dir).expanduser().resolve():
        return None
    try:
        settings = load_yaml(read_text(last / "config.yml"))
        lines = [parse_json(line) for line in read_text(last / METRICS).splitlines()]
        trained = max(line["epoch"] for line in lines) + 1 == config.num_epochs
        same = identity(settings) == identity(run_settings(config).values)
        return last if trained and same else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _finished(path: Path, config: Config) -> dict[str, Any] | None:
    try:
        results: dict[str, Any] = read_json(path)
        same = results["name"] == config.name and (
            identity(results["config"]) == identity(run_settings(config).values)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return results if same and results.get("epochs") == config.num_epochs else None
