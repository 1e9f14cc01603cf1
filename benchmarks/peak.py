"""Peak memory of a function, measured in its own process."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


def peak_memory(prepare: Callable[..., Callable[[], object]], *args: Any) -> int:
    """Peak memory of the function that `prepare(*args)` returns, in bytes above the memory before its call.

    Raises:
        RuntimeError: the process failed; its error is on standard error.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_peak, args=(prepare, args, sender))
    process.start()
    sender.close()
    try:
        return int(receiver.recv())
    except EOFError as error:
        raise RuntimeError("the measured process failed; its error is above") from error
    finally:
        process.join()


def _send_peak(
    prepare: Callable[..., Callable[[], object]], args: tuple[Any, ...], sender: Connection
) -> None:
    run = prepare(*args)
    before = _reset_peak()
    run()
    sender.send(max(_peak_bytes() - before, 0))


def _reset_peak() -> int:
    """Reset the recorded peak, which Linux allows. Returns the resident memory, in bytes.

    Freed memory is returned to the system first: else it would be used again without being counted.
    """
    with contextlib.suppress(AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return _peak_bytes()


def _peak_bytes() -> int:
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
