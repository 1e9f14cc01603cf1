"""Where a run begins: which checkpoint may be resumed, and whether anything is left to train."""

from __future__ import annotations

import dataclasses
from typing import Any

from genutil.checkpoint.serialization import describe
from genutil.distributed.rank_info import RankInfo
from genutil.runs.resume_point import ResumePoint, find_resume_point, raise_if_other_experiment
from genutil.runs.start_record import record_in, settings_in, start_record
from imagenet_sparsity_experiments.files import settings_of, workspace
from imagenet_sparsity_experiments.names import checkpoint_names
from imagenet_sparsity_experiments.options import Options
from imagenet_sparsity_experiments.training import ORDER_KEYS, TRAINING_KEYS


def find_checked_resume_point(options: Options, rank_info: RankInfo, step_size: int) -> ResumePoint:
    """The checkpoint of `--resume`, with what the results say of it.

    Args:
        options: of the run.
        rank_info: which start of which run this is.
        step_size: images of an optimizer step.

    Raises:
        CheckpointError: it cannot be read, or `auto` found one of other options.
    """
    start = find_resume_point(
        workspace(options), options.resume, rank_info, options.evaluate, checkpoint_names(options)
    )
    if start.content is None or start.path is None or options.evaluate:
        return start
    if start.found_by == "restart":
        return dataclasses.replace(start, record=record_in(start.content))
    info = describe(start.content, str(start.path))
    done = 0 if info.epoch is None else info.epoch + 1
    found = _differences(options, start, step_size, done)
    if start.found_by == "auto":
        reads_length = options.lr_schedule != "step"
        raise_if_other_experiment(start.path, found, "epochs" if reads_length else "", "--workspace")
    record = start_record(start.content, str(start.path), info.epoch, info.step, found)
    finished = None
    if done >= options.epochs and "optimizer" in start.content:
        finished = (
            f"the training is finished: {start.path} has {done} of {options.epochs} epochs; --evaluate "
            "evaluates it"
        )
    return dataclasses.replace(start, record=record, finished=finished)


def _differences(
    options: Options, start: ResumePoint, step_size: int, done: int
) -> dict[str, tuple[Any, Any]] | None:
    """The options that decide results and were others; None: the checkpoint does not hold them."""
    assert start.content is not None
    before, now = settings_in(start.content), settings_of(options, step_size).values
    if before is None:
        return None
    keys = [key for key in dict.fromkeys([*TRAINING_KEYS, *ORDER_KEYS]) if key in before]
    found = {key: (before[key], now[key]) for key in keys if before[key] != now[key]}
    if options.lr_schedule == "step" and done <= options.epochs:
        found.pop("epochs", None)
    return found
