"""Resume points: the checkpoint that a run is resumed from, and whether it belongs to the experiment."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genutil.checkpoint import CheckpointInfo, read_checkpoint
from genutil.checkpoint.file_names import CheckpointFormat, format_named
from genutil.checkpoint.serialization import checkpoint_info
from genutil.config import Config
from genutil.config.identity import differences_to_continue, differences_to_evaluate
from genutil.distributed.rank_info import RankInfo
from genutil.exceptions import CheckpointError, ConfigError
from genutil.runs.past_runs import (
    checkpoint_dir_of,
    has_saved,
    read_run_marker,
    run_dir_lacking_results,
    run_dir_of_results,
)
from genutil.runs.run_folder import run_settings
from genutil.runs.start_record import has_setting_changes, record_in, settings_in, start_record

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResumePoint:
    """Where a run begins.

    Attributes:
        path, checkpoint: the file, and what it contains; None: the run begins at the first step. The dict is
            emptied when it has been loaded, so that its tensors are not kept in memory.
        found_by: `auto`: as the last one of the run's own folder; `restart`: the same after a failure of the
            run; `file`: it was named.
        started_from: record of the start, see genutil.runs.start_record; None: the first step.
        run_dir: folder of an earlier run that lacks only its results; they are written there.
        finished: the message if nothing is left to train; else None.
    """

    path: Path | None = None
    checkpoint: dict[str, Any] | None = None
    found_by: Literal["file", "auto", "restart"] = "file"
    started_from: Mapping[str, Any] | None = None
    run_dir: Path | None = None
    finished: str | None = None


def find_resume_point(
    checkpoint_dir: Path,
    resume: str | None,
    rank_info: RankInfo,
    required: bool,
    file_format: CheckpointFormat,
    convert_settings: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> ResumePoint:
    """The checkpoint that `resume` names, or after a restart the run's own last one, if it has written one.

    Args:
        checkpoint_dir: folder of the run's checkpoints.
        resume: a file, `auto` for the last one in the folder, or None.
        rank_info: rank of this process, with the run's id and its restarts.
        required: the run needs a checkpoint.
        file_format: names and layout of the checkpoints.
        convert_settings: converts the settings in a checkpoint of an earlier version; None: they stay.

    Raises:
        CheckpointError: the file is missing, damaged or no checkpoint.
    """
    is_restart = (
        rank_info.restarts > 0
        and has_saved(checkpoint_dir, rank_info.run_id)
        and (checkpoint_dir / file_format.last).is_file()
    )
    path = find_checkpoint(checkpoint_dir, "auto" if is_restart else resume, required, file_format.last)
    if path is None:
        return ResumePoint()
    checkpoint = read_checkpoint(path)
    settings = settings_in(checkpoint)
    if convert_settings is not None and settings is not None:
        checkpoint["config"] = convert_settings(settings)
    return ResumePoint(path, checkpoint, "restart" if is_restart else "auto" if resume == "auto" else "file")


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


def checked_resume_point(
    config: Config, resume_point: ResumePoint, depends_on_num_epochs: bool
) -> ResumePoint:
    """Check that a checkpoint belongs to the experiment, and whether its training is finished.

    Args:
        config: the experiment.
        resume_point: result of find_resume_point.
        depends_on_num_epochs: whether training depends on `num_epochs` from the first step.

    Returns:
        A copy with `started_from`, and if all epochs are done, with `finished` or `run_dir`.

    Raises:
        CheckpointError: `auto` found a checkpoint of other settings, or training cannot be resumed from it.
    """
    path, checkpoint = resume_point.path, resume_point.checkpoint
    if path is None or checkpoint is None:
        return resume_point
    info = checkpoint_info(checkpoint, str(path))
    trains = not (config.evaluate or config.export)
    if resume_point.found_by == "restart":
        return dataclasses.replace(resume_point, started_from=record_in(checkpoint))
    changed = _differences(config, checkpoint, info, depends_on_num_epochs)
    if resume_point.found_by == "auto":
        _raise_if_other_experiment(config, path, changed, depends_on_num_epochs)
    if trains and not {"optimizer", "last_epoch"} <= checkpoint.keys():
        raise CheckpointError(
            f"{path}: has weights but no training state of this program, so training cannot be resumed from "
            f"it; name the training's last checkpoint, or start a new training at epoch 0 with its weights: "
            f"{config.option('use_graph')} {path} in place of --resume {path}"
        )
    record = start_record(checkpoint, str(path), info.epoch, info.step, changed)
    resume_point = dataclasses.replace(resume_point, started_from=record)
    if trains:
        resume_point = _with_finished_run(config, resume_point, info, depends_on_num_epochs)
        if has_setting_changes(record) and resume_point.finished is None:
            _log.warning("%s; the results record this", _describe_changes(config, path, changed))
    elif changed:
        _log.warning("%s; the results record this", _describe_changes(config, path, changed))
    return resume_point


def check_initial_weights(config: Config, extra_files: Collection[str]) -> None:
    """Refuse initial weights from a file that the new run would move with the checkpoints of an earlier run.

    A restart of the run would not find the file.

    Args:
        config: the experiment, which is not resumed.
        extra_files: names of other files of a training in the folder of its checkpoints.

    Raises:
        ConfigError: `use_graph` or `use_init` is a checkpoint in the run's own folder of checkpoints.
    """
    checkpoint_dir, file_format = checkpoint_dir_of(config), format_named(config.checkpoint_format)
    for key in ("use_graph", "use_init"):
        path = Path(getattr(config, key) or "").expanduser()
        is_moved = file_format.is_checkpoint(path.name) or path.name in extra_files
        if is_moved and path.is_file() and path.parent.resolve() == checkpoint_dir.resolve():
            raise ConfigError(
                f"{config.option(key)}: {path} is a file of an earlier run in {checkpoint_dir}, which this "
                f"run would move; give this run another {_option_of_checkpoint_dir(config)}"
            )


def _option_of_checkpoint_dir(config: Config) -> str:
    """The option that sets the folder of checkpoints."""
    return config.option("name" if config.checkpoint_dir is None else "checkpoint_dir")


def _differences(
    config: Config, checkpoint: Mapping[str, Any], info: CheckpointInfo, depends_on_num_epochs: bool
) -> dict[str, tuple[Any, Any]] | None:
    """The settings of the checkpoint that differ and matter; None: the file does not contain its settings."""
    before, now = settings_in(checkpoint), run_settings(config).values
    if before is None:
        return None
    if config.evaluate or config.export:
        changed = differences_to_evaluate(before, now)
        return {key: pair for key, pair in changed.items() if key not in config.not_compared}
    return differences_to_continue(before, now, _epochs_begun(checkpoint, info), depends_on_num_epochs)


def _epochs_begun(checkpoint: Mapping[str, Any], info: CheckpointInfo) -> int:
    finished = 0 if info.epoch is None else info.epoch + 1
    return finished + _is_within_epoch(checkpoint)


def _is_within_epoch(checkpoint: Mapping[str, Any]) -> bool:
    progress = checkpoint.get("epoch_progress")
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
        lines += [f"  {line}" for line in _lines(config, changed, "in the file, now")]
        if depends_on_num_epochs and "num_epochs" in changed:
            name = config.key_with_option("num_epochs")
            lines.append(f"  (training depends on {name} from the first step, as in a cosine schedule)")
    lines.append(
        f"use the same settings; or name the file, --resume {path}, and the results record that the settings "
        f"are mixed; or give this experiment another {_option_of_checkpoint_dir(config)}"
    )
    raise CheckpointError("\n".join(lines))


def _lines(config: Config, changed: Mapping[str, tuple[Any, Any]], words: str) -> list[str]:
    """Each changed setting, its value in the file, the words between, and its value now."""
    return [f"{config.key_with_option(key)}: {old!r} {words} {new!r}" for key, (old, new) in changed.items()]


def _describe_changes(config: Config, path: Path, changed: Mapping[str, tuple[Any, Any]] | None) -> str:
    if changed is None:
        return f"{path} does not contain its settings, which may differ"
    if changed:
        return f"{path} was trained with other settings ({'; '.join(_lines(config, changed, 'there, now'))})"
    return f"the training of {path} was itself resumed from a checkpoint of other settings"


def _with_finished_run(
    config: Config, resume_point: ResumePoint, info: CheckpointInfo, depends_on_num_epochs: bool
) -> ResumePoint:
    """A copy with the folder that lacks the results, or with a message, if all epochs are done."""
    path, checkpoint, record = resume_point.path, resume_point.checkpoint, resume_point.started_from
    assert path is not None and checkpoint is not None and record is not None
    done = 0 if info.epoch is None else info.epoch + 1
    if done < config.num_epochs:
        return resume_point
    is_same, checkpoint_dir, results_dir = record["differences"] == {}, checkpoint_dir_of(config), None
    if is_same:
        is_own = path.resolve().parent == checkpoint_dir.resolve()
        last_run_dir = read_run_marker(checkpoint_dir) if is_own else None
        results_dir = run_dir_of_results(config, last_run_dir)
        if results_dir is None and (run_dir := run_dir_lacking_results(config, last_run_dir)) is not None:
            return dataclasses.replace(resume_point, run_dir=run_dir, started_from=record_in(checkpoint))
    state = f"{config.name} is finished" if is_same else "nothing is left to train"
    clauses = [f"{state}: {path} has {done} of {config.num_epochs} epochs"]
    clauses.append(f"the results are in {results_dir}" if results_dir else "--evaluate evaluates it")
    if not depends_on_num_epochs:
        clauses.append(f"a larger {config.option('num_epochs')} continues it")
    return dataclasses.replace(resume_point, finished="; ".join(clauses))
