"""SIGINT and SIGTERM ask a run to stop after the step at hand."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupted(Exception):
    """The run was asked to stop and has saved its state.

    Attributes:
        signum: the signal that asked.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class StopRequest:
    """While entered, notes the first SIGINT or SIGTERM in `signum` instead of letting it end the process.

    It may be entered again within.

    Args:
        patient: a second signal changes nothing, and whoever sent it must wait; else it ends the process.
    """

    def __init__(self, patient: bool = False) -> None:
        self.signum: int | None = None
        self.patient = patient
        self._previous: dict[int, Any] = {}
        self._depth = 0

    def __enter__(self) -> StopRequest:
        self._depth += 1
        # Python allows handlers in the main thread alone.
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if not self._depth:
            self._restore()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum = signum
        if not self.patient:
            self._restore()

    def _restore(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()
