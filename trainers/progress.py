"""How far a pass over batches is: a bar on a terminal, a plain line every 30 seconds elsewhere."""

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
    """Shows the progress of one pass over batches, while it is entered.

    Args:
        name: of the pass, such as "epoch 1 of 160".
        total: batches of the pass.
        done: batches that were done before.
        more: batches of the same kind that follow after this pass, for the time that is left of all of them.
        shown: False: nothing is shown, as by all processes of a run but the first.
        processes: that share each batch.
        clock: seconds; only differences count.
    """

    def __init__(
        self,
        name: str,
        total: int,
        done: int = 0,
        more: int = 0,
        shown: bool = True,
        processes: int = 1,
        clock: Clock = time.monotonic,
    ) -> None:
        self.name, self.total, self.done, self.more = name, total, done, more
        self.shown, self.processes = shown, processes
        self._clock = clock
        self._first, self._images = done, 0
        self._started = self._reported = clock()
        self._bar: Any = None
        if shown and sys.stderr.isatty():
            with contextlib.suppress(OSError):
                self._bar = tqdm(total=total, initial=done, desc=name, leave=False)

    def __enter__(self) -> BatchProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def advance(self, images: int, loss: Callable[[], float]) -> None:
        """One batch more is done.

        Args:
            images: of the batch, in this process.
            loss: gives the mean loss so far. It may wait for the device; only a line calls it.
        """
        self.done, self._images = self.done + 1, self._images + images
        if not self.shown:
            return
        if self._bar is not None:
            self._on_bar(self._bar.update)
            return
        now = self._clock()
        if now - self._reported >= INTERVAL:
            self._reported = now
            _log.info("%s", self._line(now - self._started, loss()))

    def show_loss(self, loss: float) -> bool:
        """Shows a loss on the bar; returns whether there is one."""
        if self._bar is None:
            return False
        self._on_bar(lambda: self._bar.set_postfix(loss=f"{loss:.4f}"))
        return True

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._on_bar(self._bar.close)
            self._bar = None

    def _on_bar(self, draw: Callable[[], object]) -> None:
        """A terminal that is gone (a lost connection) must not end the run before it has saved."""
        try:
            draw()
        except OSError:
            self._bar.disable = True

    def _line(self, seconds: float, loss: float) -> str:
        speed = self._images * self.processes / seconds
        per_batch = seconds / (self.done - self._first)
        left = per_batch * (self.total - self.done)
        line = (
            f"{self.name}, batch {self.done} of {self.total}: loss {loss:.4f}, {speed:.1f} images/s, "
            f"{_as_time(left)} left"
        )
        return f"{line}, {_as_time(left + per_batch * self.more)} in all" if self.more else line


def _as_time(seconds: float) -> str:
    """Such as 0:04:10."""
    return str(datetime.timedelta(seconds=round(seconds)))
