"""Earlier runs: their checkpoints, their results, and folders whose results are missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from genutil.config import Config
from genutil.config.identity import identity
from genutil.config.limited_yaml import load_yaml
from genutil.experiment_name import folder_name
from genutil.runs.run_folder import METRICS, RESULTS, run_settings, wiring_record_of
from genutil.runs.start_record import has_setting_changes, record_in
from genutil.text_files import parse_json, read_json, read_text
from wirings.files import write_atomically

_MARKER = ".run"
"""Run marker: file in a folder of checkpoints with the id and the folder of the run that writes them."""


def checkpoint_dir_of(config: Config) -> Path:
    """The folder of an experiment's checkpoints: `checkpoint_dir`, or `<save_dir>/<name>/`."""
    if config.checkpoint_dir is not None:
        return Path(config.checkpoint_dir).expanduser()
    return Path(config.save_dir).expanduser() / folder_name(str(config.name))


def write_run_marker(checkpoint_dir: Path, run_id: str, run_dir: Path, has_saved: bool = False) -> None:
    """Write the run marker of a folder of checkpoints.

    Args:
        checkpoint_dir: folder of the checkpoints.
        run_id: id of the run that writes them.
        run_dir: folder of this run.
        has_saved: whether the last checkpoint in the folder was written by this run.
    """
    marker = json.dumps({"run_id": run_id, "folder": str(run_dir.resolve()), "has_saved": has_saved})
    write_atomically(checkpoint_dir / _MARKER, lambda file: file.write(marker.encode()))


def read_run_marker(checkpoint_dir: Path, run_id: str | None = None) -> Path | None:
    """Folder of the run that last wrote checkpoints to a folder; None: not known.

    Args:
        checkpoint_dir: folder of the checkpoints.
        run_id: None: of any run; else None is returned if another run wrote them.
    """
    try:
        marker = read_json(checkpoint_dir / _MARKER)
        run_dir = Path(marker["folder"])
        return run_dir if run_id is None or (run_id and marker["run_id"] == run_id) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def has_saved(checkpoint_dir: Path, run_id: str) -> bool:
    """Whether the last checkpoint in a folder was written by the run with this id.

    If not, it is missing, or an earlier run has written it.
    """
    return (
        read_run_marker(checkpoint_dir, run_id) is not None
        and read_json(checkpoint_dir / _MARKER).get("has_saved") is True
    )


def finished_results(config: Config) -> dict[str, Any] | None:
    """`results.json` of a finished training of this experiment; None if there is none.

    A training that was resumed from a checkpoint of other settings does not count, nor one without the record
    of its wiring if the experiment asks for it.
    """
    for path in sorted(Path(config.log_dir).expanduser().glob(f"*/{RESULTS}"), reverse=True):
        if config.record_wiring and wiring_record_of(path.parent) is None:
            continue
        results = _finished(path, config)
        if results is not None and not has_setting_changes(record_in(results)):
            return results
    return None


def run_dir_of_results(config: Config, last_run_dir: Path | None) -> Path | None:
    """Folder of a run with the results of a finished training of this experiment; None if there is none.

    Args:
        config: the experiment; its training may have been resumed from a checkpoint of other settings.
        last_run_dir: folder of the run that wrote the checkpoints, if it is known.
    """
    files = sorted(Path(config.log_dir).expanduser().glob(f"*/{RESULTS}"), reverse=True)
    paths = [*([last_run_dir / RESULTS] if last_run_dir else []), *files]
    return next((path.parent for path in paths if _finished(path, config) is not None), None)


def run_dir_lacking_results(config: Config, last_run_dir: Path | None) -> Path | None:
    """`last_run_dir` if its training is complete and only its results are missing; else None.

    Args:
        config: the experiment.
        last_run_dir: folder of the run that wrote the checkpoints, if it is known.
    """
    log_dir = Path(config.log_dir).expanduser()
    if last_run_dir is None or last_run_dir.parent.resolve() != log_dir.resolve():
        return None
    try:
        settings = load_yaml(read_text(last_run_dir / "config.yml"))
        lines = [parse_json(line) for line in read_text(last_run_dir / METRICS).splitlines()]
        trained = max(line["epoch"] for line in lines) + 1 == config.num_epochs
        same = identity(settings) == identity(run_settings(config).values)
        return last_run_dir if trained and same else None
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
    finished = same and results.get("epochs") == config.num_epochs
    return {**results, "folder": str(path.parent)} if finished else None
