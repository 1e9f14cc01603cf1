"""Resume points: the checkpoint that a run is resumed from, and whether it belongs to the experiment."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genutil.checkpoint import CheckpointInfo, read_checkpoint
from genutil.checkpoint.file_names import CheckpointFormat
from genutil.checkpoint.serialization import describe
from genutil.config import Config
from genutil.config.identity import differences_to_continue, differences_to_evaluate
from genutil.distributed.rank_info import RankInfo
from genutil.exceptions import CheckpointError, ConfigError
from genutil.runs.past_runs import (
    checkpoints_of,
    folder_lacking_results,
    folder_of_results,
    has_saved,
    read_run_marker,
)
from genutil.runs.run_folder import run_settings
from genutil.runs.start_record import has_setting_changes, record_in, settings_in, start_record

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResumePoint:
    """Where a run begins.

    Attributes:
        path, content: file and content of the checkpoint; None: the run begins at the first step. The content
            is emptied when it has been loaded, so that its tensors are not kept in memory.
        found_by: `auto`: as the last one of the run's own folder; `restart`: the same after a failure of the
            run; `file`: it was named.
        started_from: record of the start, see genutil.runs.start_record; None: the first step.
        run_folder: an earlier run's folder that lacks only its results; they are written there.
        finished: the message if nothing is left to train; else None.
    """

    path: Path | None = None
    content: dict[str, Any] | None = None
    found_by: Literal["file", "auto", "restart"] = "file"
    started_from: Mapping[str, Any] | None = None
    run_folder: Path | None = None
    finished: str | None = None


def find_resume_point(
    checkpoint_dir: Path,
    resume: str | None,
    rank_info: RankInfo,
    required: bool,
    file_format: CheckpointFormat,
) -> ResumePoint:
    """The checkpoint that `resume` names, or after a restart the run's own last one, if it has written one.

    Args:
        checkpoint_dir: the run's checkpoints.
        resume: a file, `auto` for the last one in the folder, or None.
        rank_info: rank of this process, with the run's id and its restarts.
        required: the run needs a checkpoint.
        file_format: names and layout of the checkpoints.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or foreign.
    """
    restarted = rank_info.restarts > 0 and has_saved(checkpoint_dir, rank_info.run_id)
    restarted = restarted and (checkpoint_dir / file_format.last).is_file()
    path = find_checkpoint(checkpoint_dir, "auto" if restarted else resume, required, file_format.last)
    if path is None:
        return ResumePoint()
    content = read_checkpoint(path)
    settings = settings_in(content)
    if file_format.convert_settings is not None and settings is not None:
        content["config"] = file_format.convert_settings(settings)
    return ResumePoint(path, content, "restart" if restarted else "auto" if resume == "auto" else "file")


def find_checkpoint(checkpoint_dir: Path, resume: str | None, required: bool, last: str) -> Path | None:
    """The file that `resume` names: a path, or `auto` for the folder's own `last` one, if it is there.

    Raises:
        CheckpointError: `auto` finds nothing although a checkpoint is `required`.
    """
    if resume != "auto":
        return None if resume is None else Path(resume).expanduser()
    path = checkpoint_dir / last
    if path.is_file():
        return path
    if required:
        raise CheckpointError(f"resume: auto finds no {path}; train this experiment first, or name a file")
    _log.info("resume: auto finds no %s; starting from the beginning", path)
    return None


def check_resume_point(config: Config, start: ResumePoint, depends_on_num_epochs: bool) -> ResumePoint:
    """Check that a checkpoint belongs to the experiment, and whether its training is finished.

    Args:
        config: the experiment.
        start: the checkpoint that `resume` names, or none.
        depends_on_num_epochs: whether training depends on `num_epochs` from the first step.

    Returns:
        `start` with its `started_from` for the results, and where all epochs are done with `finished` or
        `run_folder`.

    Raises:
        CheckpointError: `auto` found a checkpoint of other settings, or training cannot be resumed from it.
    """
    if start.content is None or start.path is None:
        return start
    path, info = start.path, describe(start.content, str(start.path))
    trains = not (config.evaluate or config.export)
    if start.found_by == "restart":
        return dataclasses.replace(start, started_from=record_in(start.content))
    changed = _differences(config, start.content, info, depends_on_num_epochs)
    if start.found_by == "auto":
        _raise_if_other_experiment(config, path, changed, depends_on_num_epochs)
    if trains and not {"optimizer", "last_epoch"} <= start.content.keys():
        raise CheckpointError(
            f"{path}: has weights but no training state of this program, so training cannot be resumed from "
            f"it; name the training's last checkpoint, or start a new training at epoch 0 with its weights: "
            f"{config.option('use_graph')} {path} in place of --resume {path}"
        )
    record = start_record(start.content, str(start.path), info.epoch, info.step, changed)
    start = dataclasses.replace(start, started_from=record)
    if trains:
        start = _check_finished(config, start, info, depends_on_num_epochs)
        if has_setting_changes(record) and start.finished is None:
            _log.warning("%s; the results record this", _describe_changes(config, path, changed))
    elif changed:
        _log.warning("%s; the results record this", _describe_changes(config, path, changed))
    return start


def check_initial_weights(config: Config, file_format: CheckpointFormat) -> None:
    """Refuse initial weights from a file that the new run would move, as a checkpoint of an earlier run.

    A restart of the run would not find the file.

    Args:
        config: the experiment, which is not resumed.
        file_format: names and layout of its checkpoints.

    Raises:
        ConfigError: `use_graph` or `use_init` is a checkpoint in the run's own folder of checkpoints.
    """
    folder = checkpoints_of(config)
    for key in ("use_graph", "use_init"):
        path = Path(getattr(config, key) or "").expanduser()
        if (
            path.is_file()
            and path.parent.resolve() == folder.resolve()
            and file_format.is_checkpoint(path.name)
        ):
            raise ConfigError(
                f"{config.option(key)}: {path} is a file of an earlier run in {folder}, which this run would "
                f"move; give this run another {_option_of_folder(config)}"
            )


def _option_of_folder(config: Config) -> str:
    """The option that sets the folder of checkpoints."""
    return config.option("name" if config.checkpoint_dir is None else "checkpoint_dir")


def _differences(
    config: Config, content: Mapping[str, Any], info: CheckpointInfo, depends_on_num_epochs: bool
) -> dict[str, tuple[Any, Any]] | None:
    before, now = settings_in(content), run_settings(config).values
    if before is None:
        return None
    if config.evaluate or config.export:
        changed = differences_to_evaluate(before, now)
        return {key: pair for key, pair in changed.items() if key not in config.not_stated}
    return differences_to_continue(before, now, _epochs_begun(content, info), depends_on_num_epochs)


def _epochs_begun(content: Mapping[str, Any], info: CheckpointInfo) -> int:
    finished = 0 if info.epoch is None else info.epoch + 1
    return finished + _is_within_epoch(content)


def _is_within_epoch(content: Mapping[str, Any]) -> bool:
    progress = content.get("epoch_progress")
    return isinstance(progress, Mapping) and bool(progress.get("batch"))


def _raise_if_other_experiment(
    config: Config, path: Path, changed: Mapping[str, tuple[Any, Any]] | None, depends_on_num_epochs: bool
) -> None:
    """Refuse a checkpoint that `auto` found if it belongs to another experiment.

    Args:
        config: the experiment.
        path: the checkpoint's file.
        changed: the settings that differ; None: the file does not contain its settings.
        depends_on_num_epochs: whether training depends on `num_epochs` from the first step.

    Raises:
        CheckpointError: there are differences, or they are not known.
    """
    if changed is not None and not changed:
        return
    lines = [f"resume: auto found {path}, which belongs to another experiment:"]
    if changed is None:
        lines = [f"resume: auto found {path}, which does not contain its settings"]
    else:
        lines += [f"  {line}" for line in _listed(config, changed, "in the file, now")]
        if depends_on_num_epochs and "num_epochs" in changed:
            name = config.key_with_option("num_epochs")
            lines.append(f"  (training depends on {name} from the first step, as in a cosine schedule)")
    lines.append(
        f"use the same settings; or name the file, --resume {path}, and the results record that the settings "
        f"are mixed; or give this experiment another {_option_of_folder(config)}"
    )
    raise CheckpointError("\n".join(lines))


def _listed(config: Config, changed: Mapping[str, tuple[Any, Any]], between: str) -> list[str]:
    """Each changed setting with its values in the file and now."""
    return [
        f"{config.key_with_option(key)}: {old!r} {between} {new!r}" for key, (old, new) in changed.items()
    ]


def _describe_changes(config: Config, path: Path, changed: Mapping[str, tuple[Any, Any]] | None) -> str:
    if changed is None:
        return f"{path} does not contain its settings, which may differ"
    if changed:
        return f"{path} was trained with other settings ({'; '.join(_listed(config, changed, 'there, now'))})"
    return f"the training of {path} was itself resumed from a checkpoint of other settings"


def _check_finished(
    config: Config, start: ResumePoint, info: CheckpointInfo, depends_on_num_epochs: bool
) -> ResumePoint:
    """`start`; where all epochs are done, with the folder that lacks the results, or with a message."""
    assert start.content is not None and start.path is not None and start.started_from is not None
    done = 0 if info.epoch is None else info.epoch + 1
    if done < config.num_epochs:
        return start
    same, checkpoints, results = start.started_from["differences"] == {}, checkpoints_of(config), None
    if same:
        is_in_folder = start.path.resolve().parent == checkpoints.resolve()
        last = read_run_marker(checkpoints) if is_in_folder else None
        results = folder_of_results(config, last)
        if results is None and (folder := folder_lacking_results(config, last)) is not None:
            return dataclasses.replace(start, run_folder=folder, started_from=record_in(start.content))
    what = f"{config.name} is finished" if same else "nothing is left to train"
    parts = [f"{what}: {start.path} has {done} of {config.num_epochs} epochs"]
    parts.append(f"the results are in {results}" if results else "--evaluate evaluates it")
    if not depends_on_num_epochs:
        parts.append(f"a larger {config.option('num_epochs')} continues it")
    return dataclasses.replace(start, finished="; ".join(parts))
