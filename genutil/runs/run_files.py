"""Where a run begins, and the folders it writes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genutil.checkpoint import read_checkpoint
from genutil.checkpoint.file_names import GRAPH_LAYOUT, Layout
from genutil.distributed.rank_info import Place
from genutil.runs.checkpoint_folder import CheckpointFolder, earlier_start, find_checkpoint
from genutil.runs.run_folder import RunFolder, RunSettings


@dataclass(frozen=True)
class Start:
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
    folder: Path, resume: str | None, place: Place, required: bool, layout: Layout = GRAPH_LAYOUT
) -> Start:
    """Where this start of a run begins: at `resume`, or after a restart at the run's own last checkpoint.

    Args:
        folder: of the run's checkpoints.
        resume: a file, `auto` for the last one in the folder, or None.
        place: which start of which run this is.
        required: the run cannot do without a checkpoint.
        layout: of the folder's files.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or foreign.
    """
    again = place.restarts and earlier_start(folder, place.run_id) and (folder / layout.last).is_file()
    path = find_checkpoint(folder, "auto" if again else resume, required, layout.last)
    if path is None:
        return Start()
    return Start(path, read_checkpoint(path), "restart" if again else "auto" if resume == "auto" else "file")


class RunFiles:
    """The files of a training: its checkpoints, and `<log_dir>/<run>/`.

    A start after a failure continues the folders of the earlier start.

    Args:
        folder: of the checkpoints.
        settings: of the run.
        place: which start of which run this is.
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
        place: Place,
        start: Start,
        step: int,
        layout: Layout = GRAPH_LAYOUT,
    ) -> None:
        earlier = earlier_start(folder, place.run_id) if place.restarts else start.run_folder
        self.checkpoints = CheckpointFolder(folder, start.path, place.run_id, layout)
        self.run = RunFolder(settings, earlier, step)
        self.checkpoints.note_start(place.run_id, self.run.path)
