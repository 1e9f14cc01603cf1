"""The largest memory that something needs, in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


def peak_memory(prepare: Callable[..., Callable[[], object]], *args: Any) -> int:
    """Bytes that the function made by `prepare(*args)` needs beyond what is resident when it is called."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_peak, args=(prepare, args, there))
    process.start()
    there.close()
    try:
        return int(here.recv())
    finally:
        process.join()


def _peak(prepare: Callable[..., Callable[[], object]], args: tuple[Any, ...], answer: Connection) -> None:
    run = prepare(*args)
    before = _resident()
    run()
    unit = 1 if sys.platform == "darwin" else 1024
    answer.send(max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before, 0))


def _resident() -> int:
    """Linux tells the present value; elsewhere the largest so far has to do."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * os.sysconf("SC_PAGE_SIZE")
