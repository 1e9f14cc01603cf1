"""Where a run begins, and the folders it writes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genutil.checkpoint import read_checkpoint
from genutil.checkpoint_folder import LAST, CheckpointFolder, earlier_start, find_checkpoint
from genutil.config import Config
from genutil.place import Place
from genutil.reporting import RunFolder


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes:
        path, content: the checkpoint it goes on from; None: it begins anew.
    """

    path: Path | None = None
    content: Mapping[str, Any] | None = None


def find_start(config: Config, place: Place) -> Start:
    """Where this start of a run begins: at `resume`, or after a restart at the run's own last.pt.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or foreign.
    """
    folder = checkpoints_of(config)
    goes_on = place.restarts and earlier_start(folder, place.run_id) and (folder / LAST).is_file()
    path = find_checkpoint(folder, "auto" if goes_on else config.resume, required=config.evaluate)
    return Start() if path is None else Start(path, read_checkpoint(path))


def checkpoints_of(config: Config) -> Path:
    """The folder of an experiment's checkpoints."""
    return Path(config.save_dir).expanduser() / str(config.name)


class RunFiles:
    """The files of a training: `<save_dir>/<name>/` and `<log_dir>/<run>/`.

    A start after a failure goes on with the folders of the earlier start.

    Args:
        config: the experiment.
        place: which start of which run this is.
        start: where it begins.
        step: training steps that were done before.

    Attributes:
        checkpoints, run: the two folders.

    Raises:
        UserError: a folder cannot be written to.
    """

    def __init__(self, config: Config, place: Place, start: Start, step: int) -> None:
        path = checkpoints_of(config)
        earlier = earlier_start(path, place.run_id) if place.restarts else None
        self.checkpoints = CheckpointFolder(path, start.path, place.run_id)
        self.run = RunFolder(config, earlier, step)
        self.checkpoints.note_start(place.run_id, self.run.path)
