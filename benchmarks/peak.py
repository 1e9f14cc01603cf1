"""The largest memory that something needs, in a process of its own."""

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
    """Bytes that the function made by `prepare(*args)` needs beyond what is resident when it is called.

    Raises:
        RuntimeError: the process ended without an answer; why stands on its stderr.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_peak, args=(prepare, args, there))
    process.start()
    there.close()
    try:
        return int(here.recv())
    except EOFError as error:
        raise RuntimeError("the process whose memory was to be measured failed; see above") from error
    finally:
        process.join()


def _peak(prepare: Callable[..., Callable[[], object]], args: tuple[Any, ...], answer: Connection) -> None:
    run = prepare(*args)
    before = _forget_peak()
    run()
    answer.send(max(_highest() - before, 0))


def _forget_peak() -> int:
    """Reset the largest value so far, which Linux allows. Returns the value at present.

    What was freed is given back first: else it would be used again, and not be counted.
    """
    with contextlib.suppress(AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return _highest()


def _highest() -> int:
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
