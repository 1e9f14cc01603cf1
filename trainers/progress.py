"""Progress of a pass over batches: a bar on a terminal, a plain line every 30 seconds elsewhere."""

from __future__ import annotations

import contextlib
import datetime
import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tqdm import tqdm

INTERVAL = 30.0
"""Seconds between two plain lines."""
Clock = Callable[[], float]
_log = logging.getLogger(__name__)


class BatchProgress:
    """Shows the progress of one pass over batches, within its context.

    Args:
        name: of the pass, such as "epoch 1 of 160".
        total: batches of the pass.
        done: batches done before.
        batches_after: batches of the same kind in later passes, for the remaining time of all of them.
        visible: False: nothing is shown, as in all processes of a run but the first.
        processes: number of processes that share each batch.
        clock: seconds; only differences count.
    """

    def __init__(
        self,
        name: str,
        total: int,
        done: int = 0,
        batches_after: int = 0,
        visible: bool = True,
        processes: int = 1,
        clock: Clock = time.monotonic,
    ) -> None:
        self.name, self.total, self.done, self.batches_after = name, total, done, batches_after
        self.visible, self.processes = visible, processes
        self._clock = clock
        self._first, self._images = done, 0
        self._started = self._reported = clock()
        self._bar: Any = None
        if visible and sys.stderr.isatty():
            with contextlib.suppress(OSError):
                self._bar = tqdm(total=total, initial=done, desc=name, leave=False)

    def __enter__(self) -> BatchProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def advance(self, images: int, loss: Callable[[], float]) -> None:
        """Count one more batch.

        Args:
            images: images of the batch in this process.
            loss: returns the mean loss so far. It may wait for the device; only a line calls it.
        """
        self.done, self._images = self.done + 1, self._images + images
        if not self.visible:
            return
        if self._bar is not None:
            self._on_bar(self._bar.update)
            return
        now = self._clock()
        if now - self._reported >= INTERVAL:
            self._reported = now
            _log.info("%s", self._line(now - self._started, loss()))

    def show_loss(self, loss: float) -> bool:
        """Show a loss on the bar. Returns whether there is a bar."""
        if self._bar is None:
            return False
        self._on_bar(lambda: self._bar.set_postfix(loss=f"{loss:.4f}"))
        return True

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._on_bar(self._bar.close)
            self._bar = None

    def _on_bar(self, draw: Callable[[], object]) -> None:
        """Draw on the bar. A lost terminal must not end the run before it has saved."""
        try:
            draw()
        except OSError:
            self._bar.disable = True

    def _line(self, seconds: float, loss: float) -> str:
        speed = self._images * self.processes / seconds
        per_batch = seconds / (self.done - self._first)
        seconds_left = per_batch * (self.total - self.done)
        line = (
            f"{self.name}, batch {self.done} of {self.total}: loss {loss:.4f}, {speed:.1f} images/s, "
            f"{_as_time(seconds_left)} left"
        )
        if not self.batches_after:
            return line
        return f"{line}, {_as_time(seconds_left + per_batch * self.batches_after)} in all"


def _as_time(seconds: float) -> str:
    """Such as 0:04:10."""
    return str(datetime.timedelta(seconds=round(seconds)))
