"""Where a run begins, and the folders it writes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genutil.checkpoint import read_checkpoint
from genutil.checkpoint.file_names import GRAPH_NAMES, CheckpointNames
from genutil.distributed.rank_info import RankInfo
from genutil.runs.checkpoint_folder import CheckpointFolder, find_checkpoint, previous_attempt
from genutil.runs.run_folder import RunFolder, RunSettings


@dataclass(frozen=True)
class ResumePoint:
    """Where a run begins.

    Attributes:
        path, content: the checkpoint it is resumed from; None: it starts at the first step.
        found_by: `auto`: as the last one of the run's own folder; `restart`: the same after a failure of the
            run; `file`: it was named.
        record: where the run began, see genutil.runs.start_record; None: at its first step.
        run_folder: an earlier run's folder that lacks nothing but its results; they go there.
        finished: nothing is left to do: what to say.
    """

    path: Path | None = None
    content: Mapping[str, Any] | None = None
    found_by: Literal["file", "auto", "restart"] = "file"
    record: Mapping[str, Any] | None = None
    run_folder: Path | None = None
    finished: str | None = None


def find_start(
    folder: Path,
    resume: str | None,
    rank_info: RankInfo,
    required: bool,
    layout: CheckpointNames = GRAPH_NAMES,
) -> ResumePoint:
    """Where this start of a run begins: at `resume`, or after a restart at the run's own last checkpoint.

    Args:
        folder: of the run's checkpoints.
        resume: a file, `auto` for the last one in the folder, or None.
        rank_info: which start of which run this is.
        required: the run cannot do without a checkpoint.
        layout: of the folder's files.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or foreign.
    """
    again = (
        rank_info.restarts and previous_attempt(folder, rank_info.run_id) and (folder / layout.last).is_file()
    )
    path = find_checkpoint(folder, "auto" if again else resume, required, layout.last)
    if path is None:
        return ResumePoint()
    return ResumePoint(
        path, read_checkpoint(path), "restart" if again else "auto" if resume == "auto" else "file"
    )


class RunOutputs:
    """The files of a training: its checkpoints, and `<log_dir>/<run>/`.

    A start after a failure continues the folders of the earlier start.

    Args:
        folder: of the checkpoints.
        settings: of the run.
        rank_info: which start of which run this is.
        start: where it begins.
        step: training steps that were done before.
        layout: of the checkpoints.

    Attributes:
        checkpoints, run: the two folders.

    Raises:
        UserError: a folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        settings: RunSettings,
        rank_info: RankInfo,
        start: ResumePoint,
        step: int,
        layout: CheckpointNames = GRAPH_NAMES,
    ) -> None:
        earlier = previous_attempt(folder, rank_info.run_id) if rank_info.restarts else start.run_folder
        self.checkpoints = CheckpointFolder(folder, start.path, rank_info.run_id, layout)
        self.run = RunFolder(settings, earlier, step)
        self.checkpoints.write_run_marker(rank_info.run_id, self.run.path)
