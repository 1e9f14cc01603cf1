"""Folders of a training: its checkpoints (one writer at a time; earlier files are kept) and its reports."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from genutil.checkpoint import save_checkpoint
from genutil.checkpoint.file_names import GRAPH_FORMAT, CheckpointFormat
from genutil.distributed.rank_info import RankInfo
from genutil.exceptions import CheckpointError
from genutil.runs.past_runs import has_saved, read_run_marker, write_run_marker
from genutil.runs.resume_point import ResumePoint
from genutil.runs.run_folder import RunFolder, RunSettings

_log = logging.getLogger(__name__)


class CheckpointFolder:
    """`<save_dir>/<name>/`, held by this process until it ends or `close` is called.

    Args:
        path: the folder; created if it does not exist.
        resumed_from: the file that this run is resumed from. If it is in another folder or None, existing
            checkpoints belong to another run and are moved to `<folder>.1`, `.2`, …; those of the current
            folder, or of one that contains it, to `<folder>/earlier.1`, ….
        run_id: id of the run; the files of an earlier start of the same run are not moved.
        file_format: names and layout of the checkpoints.
        extra_files: names of other files of a training in this folder, which are moved with its checkpoints.

    Raises:
        CheckpointError: another process is writing to the folder, or it cannot be made.
    """

    def __init__(
        self,
        path: Path,
        resumed_from: Path | None = None,
        run_id: str = "",
        file_format: CheckpointFormat = GRAPH_FORMAT,
        extra_files: Collection[str] = (),
    ) -> None:
        self.path, self.file_format, self.extra_files = path, file_format, extra_files
        self._marker: tuple[str, Path] | None = None
        self._has_saved = has_saved(path, run_id)
        is_resumed_here = resumed_from is not None and resumed_from.resolve().parent == path.resolve()
        is_same_run = is_resumed_here or read_run_marker(path, run_id) is not None
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
            if not is_same_run:
                self._archive_old_checkpoints()
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be used for checkpoints ({error})") from error

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Write `name` into the folder, completely or not at all."""
        if not self.path.is_dir():
            _log.warning("%s was removed and is created again; its checkpoints are lost", self.path)
            self.close()
            self.path.mkdir(parents=True)
            self._lock = self._take_lock()
            self._has_saved = False
            self._write_run_marker()
        save_checkpoint(self.path / name, self.file_format.to_layout(state))
        if name == self.file_format.last and not self._has_saved:
            self._has_saved = True
            self._write_run_marker()

    def keep_last(self, count: int) -> None:
        """Remove all numbered files but the `count` ones that were written last.

        The time counts, not the number: a training that was resumed from an earlier epoch leaves files of
        larger numbers, which are older.
        """
        numbered = [
            (file.stat().st_mtime_ns, number, file)
            for file in self.path.iterdir()
            if (number := self.file_format.number(file.name)) is not None
        ]
        for *_, file in sorted(numbered)[:-count]:
            file.unlink(missing_ok=True)

    def write_run_marker(self, run_id: str, run_dir: Path) -> None:
        """Record which run writes here, for a later start of the same run."""
        self._marker = (run_id, run_dir)
        self._write_run_marker()

    def close(self) -> None:
        """Let other processes write to the folder."""
        os.close(self._lock)

    def _write_run_marker(self) -> None:
        if self._marker is not None:
            write_run_marker(self.path, *self._marker, self._has_saved)

    def _take_lock(self) -> int:
        descriptor = os.open(self.path / ".lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            message = (
                f"{self.path}: another run is writing its checkpoints here; give this one another name "
                "or folder"
            )
            raise CheckpointError(message) from error
        except OSError as error:  # such as a file system without locks
            os.close(descriptor)
            raise CheckpointError(f"{self.path}: cannot be used for checkpoints ({error})") from error
        return descriptor

    def _archive_old_checkpoints(self) -> None:
        files = sorted(
            file
            for file in self.path.iterdir()
            if self.file_format.is_checkpoint(file.name) or file.name in self.extra_files
        )
        if not files:
            return
        number, path = 1, self.path.resolve()
        # Files of the current folder stay in it, where the user expects them.
        base = path / "earlier" if Path.cwd().is_relative_to(path) else path
        while (archive := base.with_name(f"{base.name}.{number}")).exists():
            number += 1
        archive.mkdir()
        for file in files:
            file.rename(archive / file.name)
        _log.warning("checkpoints of an earlier run were moved to %s", archive)


class RunOutputs:
    """The two folders of a training: `<log_dir>/<run>/`, made at once, and its checkpoints.

    A restart after a failure writes to the folders of the earlier start.

    Args:
        checkpoint_dir: folder of the checkpoints; None: none are written.
        settings: settings of the run.
        rank_info: rank of this process, with the run's id and its restarts.
        resume_point: where the run begins.
        step: training steps that were done before.

    Attributes:
        run_folder: the run's folder.
        checkpoint_folder: set by `open_checkpoints`; None where none are written.

    Raises:
        UserError: a folder cannot be written to.
    """

    def __init__(
        self,
        checkpoint_dir: Path | None,
        settings: RunSettings,
        rank_info: RankInfo,
        resume_point: ResumePoint,
        step: int,
    ) -> None:
        self._checkpoint_dir, self._resumed_from = checkpoint_dir, resume_point.path
        self._run_id = rank_info.run_id
        earlier_dir = resume_point.run_dir
        if checkpoint_dir is not None and rank_info.restarts:
            earlier_dir = read_run_marker(checkpoint_dir, rank_info.run_id)
        self.run_folder = RunFolder(settings, earlier_dir, step)
        self.checkpoint_folder: CheckpointFolder | None = None

    def open_checkpoints(self, file_format: CheckpointFormat, extra_files: Collection[str] = ()) -> None:
        """Make the folder of checkpoints, if any are written. Those of earlier runs are moved.

        Args:
            file_format: names and layout of the checkpoints.
            extra_files: see CheckpointFolder.

        Raises:
            CheckpointError: see CheckpointFolder.
        """
        if self._checkpoint_dir is not None:
            self.checkpoint_folder = CheckpointFolder(
                self._checkpoint_dir, self._resumed_from, self._run_id, file_format, extra_files
            )
            self.checkpoint_folder.write_run_marker(self._run_id, self.run_folder.path)
