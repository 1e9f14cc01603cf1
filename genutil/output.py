"""Standard output and standard error that no character, full disk or closed pipe makes raise an error."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast


class Output:
    """A text stream whose failures are kept instead of raised: a long training still saves its results.

    Args:
        stream: what is written to; None: it was closed before the command began.

    Attributes:
        error: the first failure to write.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.error: OSError | None = None
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # shows what the encoding lacks as \xb1 or \u2026

    def write(self, text: str) -> int:
        """Write as far as that is possible."""
        if self._stream is not None and self.error is None:
            try:
                self._stream.write(text)
            except OSError as error:
                self.error = error
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, as far as that is possible."""
        if self._stream is not None and self.error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self.error = error

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def finish(self) -> None:
        """Flush; after a failure, let the interpreter's own flush at its end find nothing to fail on."""
        self.flush()
        if self.error is not None and self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextlib.contextmanager
def safe_output() -> Iterator[Output]:
    """Within it, `sys.stdout` and `sys.stderr` never raise; gives the first of them."""
    _open_closed_descriptors()
    before = sys.stdout, sys.stderr
    out, err = Output(sys.stdout), Output(sys.stderr)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out
    finally:
        sys.stdout, sys.stderr = before
        out.finish()
        err.finish()


def _open_closed_descriptors() -> None:
    """Else the next file that is opened, perhaps a checkpoint, gets what is written to standard output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
