"""Random number generators of the process."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Within it, random numbers may be drawn; afterwards the generators are as they were before.

    The generators of Python, NumPy, and torch on the CPU and on the current GPU are meant: asking the other
    GPUs would take memory on each of them.
    """
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
