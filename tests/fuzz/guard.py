"""What is watched while a case runs: nothing executed, nothing written elsewhere, no hang."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

EXECUTED = "fuzz.executed"
"""Audit event that hostile inputs raise where their code runs."""
_PROCESSES = (
    EXECUTED, "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn",
    "subprocess.Popen", "socket.connect", "socket.bind", "socket.getaddrinfo", "webbrowser.open",
    "urllib.Request", "pickle.find_class",
)  # fmt: skip
_CHANGES = (
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.link", "os.symlink",
    "os.truncate", "shutil.rmtree", "shutil.move",
)  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Hang(BaseException):
    """A case took too long. No `except Exception` catches it."""


class Guard:
    """Notes forbidden events of this process while a case runs. One for each process: hooks stay.

    Args:
        folder: where cases may write.
        seconds: of the processor, after which a case counts as hung.
        longest: the same, of the clock.
    """

    def __init__(self, folder: Path, seconds: float, longest: float) -> None:
        self.folder, self.seconds, self.longest = str(folder.resolve()), seconds, longest
        self.events: list[str] = []
        self._active = False
        sys.addaudithook(self._audit)
        for signum in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(signum, _stop)

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Around one case. Afterwards `events` holds what it did and must not do."""
        self.events.clear()
        signal.setitimer(signal.ITIMER_PROF, self.seconds)
        signal.setitimer(signal.ITIMER_REAL, self.longest)
        self._active = True
        try:
            yield
        finally:
            self._active = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = any(sign in (mode or "") for sign in "wax+") or (flags or 0) & _WRITES
            if writes and not isinstance(path, int) and not self._may_change(path):
                self.events.append(f"open for writing: {path!r}")
        elif (event in _PROCESSES) or (event in _CHANGES and not self._may_change(arguments[0])):
            self.events.append(f"{event} {arguments!r}"[:300])

    def _may_change(self, path: Any) -> bool:
        if isinstance(path, int):
            return True
        full = os.path.realpath(os.fsdecode(path))
        return full == os.devnull or full == self.folder or full.startswith(self.folder + os.sep)


def limit_memory(gigabytes: float) -> None:
    """Let this process take so much more address space than it has; beyond that there is a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


def _stop(signum: int, frame: FrameType | None) -> None:
    raise Hang
