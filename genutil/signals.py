"""Stop signals: requests to stop after the current step, by Ctrl-C, the end of a job, a lost terminal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Any

STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT") if hasattr(signal, name)
)
"""The signals that stop a run. If processes get different ones, the first in this order is reported."""
_DELIBERATE = (signal.SIGINT, signal.SIGTERM)
"""A second one of these ends a process at once. SIGHUP is not among them: the shell and the system may both
send one."""


class Interrupted(Exception):
    """A signal asked the run to stop. The trainer's callbacks save the state before it is raised further.

    Attributes:
        signum: the signal that asked.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


def stop_signals() -> list[signal.Signals]:
    """The signals that stop a run in this process.

    SIGHUP and SIGUSR1 are excluded if they were ignored at the start, as `nohup` does with SIGHUP.
    """
    return [
        signum
        for signum in STOP_SIGNALS
        if signum in _DELIBERATE or signal.getsignal(signum) is not signal.SIG_IGN
    ]


class StopRequest:
    """Context manager: stores the first of `stop_signals` in `signum`; the process is not ended. Reentrant.

    Args:
        patient: a second SIGINT or SIGTERM changes nothing, and the sender must wait; else it ends the
            process.
    """

    def __init__(self, patient: bool = False) -> None:
        self.signum: int | None = None
        self.patient = patient
        self._previous: dict[int, Any] = {}
        self._depth = 0

    def __enter__(self) -> StopRequest:
        self._depth += 1
        # Python allows handlers only in the main thread.
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            for signum in stop_signals():
                self._previous[signum] = signal.signal(signum, self._store)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if not self._depth:
            self._restore(list(self._previous))

    def _store(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum = signum
        if signum in _DELIBERATE and not self.patient:
            self._restore(_DELIBERATE)

    def _restore(self, signums: Iterable[int]) -> None:
        for signum in signums:
            if signum in self._previous:
                signal.signal(signum, self._previous.pop(signum))
