"""Loading processes of image files: shared memory, open files, failures, images that cannot be read."""

from __future__ import annotations

import logging
import multiprocessing
import os
from typing import Any

import torch
from torch import Tensor

from data.decoding import Unread
from genutil.exceptions import DataError, RunError

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

SHARED_MEMORY = "/dev/shm"  # noqa: S108  (Linux's place of it; only its free space is read)
_FILES_OF_A_WORKER, _OTHER_FILES = 8, 64
"""Open files for pipes and batches of each loading process; reserve for all other files of a run."""
_log = logging.getLogger(__name__)


def shared_memory_advice() -> str:
    """Size of the shared memory, and how to get more or need none."""
    return (
        f"{_shared_memory_size()}; a container gets more with `docker run --shm-size 8g`, and --workers 0 "
        "needs none"
    )


class Loading:
    """Loading processes of a run: their number, how batches are passed on, which images are left out.

    All data sets of a run share one object, so that each problem is reported once.

    Args:
        workers: loading processes to start. Fewer are used, with a warning, if this process may not open
            enough files; none, if the system does not allow to start any.
        skip_corrupt: leave out images that cannot be read; else the first one ends the run.

    Attributes:
        workers: loading processes that are used; 0: images are decoded in this process.
        uses_shared_memory: batches are passed on in shared memory while it has room; else through pipes.
        corrupt: files that were left out.
    """

    def __init__(self, workers: int, skip_corrupt: bool = False) -> None:
        self.workers, self.skip_corrupt = workers, skip_corrupt
        self.uses_shared_memory = True
        self.corrupt: set[str] = set()
        self._reported = False
        limit = _open_files_limit()
        if workers and limit is not None:
            self.workers = max(0, min(workers, (limit - _OTHER_FILES) // _FILES_OF_A_WORKER))
        if self.workers < workers:
            _log.warning(
                "%d loading processes are used instead of %d, since this process may open %d files only; "
                "raise that number with `ulimit -n`",
                self.workers, workers, limit,
            )  # fmt: skip
        if self.workers:
            try:
                _try_locks(2 * (5 + 3 * (1 + self.workers)))  # for training and for validation
            except OSError as error:
                self._use_none(error)

    def collate(self, samples: list[Any]) -> tuple[Any, Any, list[Unread]]:
        """A batch of samples (uint8 image, label) or Unread, as the argument of `received`.

        Raises:
            MemoryError: it does not fit into memory.
        """
        pairs = [sample for sample in samples if not isinstance(sample, Unread)]
        unread = [sample for sample in samples if isinstance(sample, Unread)]
        labels = torch.tensor([label for _, label in pairs], dtype=torch.int64)
        if not pairs:
            return None, labels.numpy(), unread
        images = torch.stack([image for image, _ in pairs])
        in_worker = torch.utils.data.get_worker_info() is not None
        return self._to_send(images) if in_worker else images, labels.numpy(), unread

    def received(self, batch: tuple[Any, Any, list[Unread]]) -> tuple[Tensor | None, Tensor, list[Unread]]:
        """uint8 images (None: none could be read), int64 labels, and the images that could not be read."""
        images, labels, unread = batch
        if images is not None and not isinstance(images, Tensor):
            images = torch.from_numpy(images)
            if self.uses_shared_memory and not self._reported:
                self._reported = True
                _log.warning(
                    "shared memory is too small for a batch of %s: batches come through pipes, which is "
                    "slower; %s",
                    _in_bytes(images.nbytes), shared_memory_advice(),
                )  # fmt: skip
        return images, torch.from_numpy(labels), unread

    def leave_out(self, image: Unread) -> bool:
        """Note an image that cannot be read. Returns whether it was left out for the first time.

        Raises:
            DataError: it may not be left out.
        """
        if not self.skip_corrupt:
            raise DataError(
                f"{image.file}: {image.problem}; {image.remedy}, or leave out such images with --skip_corrupt"
            )
        is_new = image.file not in self.corrupt
        self.corrupt.add(image.file)
        return is_new

    def recover(self, error: Exception, number: int, again: bool) -> None:
        """Prepare another attempt after an error of the loading processes.

        Args:
            error: raised while a batch was read.
            number: of the batch.
            again: the last attempt failed at this batch, too.

        Raises:
            RunError: another attempt would fail as well.
            Exception: `error`, if it has another cause.
        """
        text = str(error)
        if "Too many open files" in text:
            if not self.workers:
                raise RunError(f"{text}; raise the number of files with `ulimit -n`") from error
            self._use_none(error)
        elif isinstance(error, OSError) and self.workers:
            self._use_none(error)
        elif not isinstance(error, RuntimeError) or "DataLoader worker" not in text:
            raise error
        elif again:
            raise RunError(
                f"loading processes were killed twice at batch {number} ({text}); most often there is too "
                f"little memory for {self.workers} of them: start fewer with --workers. Shared memory: "
                f"{shared_memory_advice()}"
            ) from error
        else:  # a bus error, where shared memory is full, looks like any other kill
            self.uses_shared_memory = False
            _log.warning(
                "a loading process was killed (%s); starting new ones at batch %d, without shared memory; %s",
                error, number, shared_memory_advice(),
            )  # fmt: skip

    def _to_send(self, images: Tensor) -> Any:
        """The images in shared memory if it has room, else as an array, which is copied through a pipe.

        The free space is checked here: where torch finds too little itself, the batch never arrives.
        """
        if self.uses_shared_memory and _free_shared_memory() >= 2 * images.nbytes:
            try:
                return images.share_memory_()  # type: ignore[no-untyped-call]
            except (OSError, RuntimeError):
                pass
        return images.numpy()

    def _use_none(self, error: Exception) -> None:
        self.workers = 0
        reason = getattr(error, "strerror", None) or str(error).strip().rpartition("\n")[2]
        _log.warning(
            "loading processes cannot be used (%s): images are decoded in this process, which is slower, as "
            "with --workers 0; %s",
            reason, shared_memory_advice(),
        )  # fmt: skip


def _try_locks(number: int) -> None:
    """Make as many locks as loading processes need. On Linux they are in shared memory.

    Raises:
        OSError: the shared memory is full or read-only.
    """
    context = multiprocessing.get_context()
    locks = [context.Lock() for _ in range(number)]
    del locks


def _open_files_limit() -> int | None:
    """Number of files that this process may open; None if there is no limit."""
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _free_shared_memory() -> float:
    """Free bytes; infinite where shared memory is not a file system."""
    try:
        status = os.statvfs(SHARED_MEMORY)
    except (OSError, AttributeError):
        return float("inf")
    return status.f_bavail * status.f_frsize


def _shared_memory_size() -> str:
    try:
        status = os.statvfs(SHARED_MEMORY)
    except (OSError, AttributeError):
        return f"there is no {SHARED_MEMORY}"
    access = ", read-only" if status.f_flag & os.ST_RDONLY else ""
    free, size = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    return f"{SHARED_MEMORY} has {_in_bytes(size)}, {_in_bytes(free)} of it free{access}"


def _in_bytes(number: int) -> str:
    return f"{number / 2**20:,.1f} MiB"
