"""Random number generators are as they were before, and no other GPU than the current one is asked."""

import contextlib
import random

import numpy as np
import torch

from wirings.rng import preserve_rng_state


def draw():
    return random.random(), np.random.rand(), torch.rand(3).tolist()


def test_generators_are_as_before():
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    with preserve_rng_state():
        first = draw()
    assert draw() == first


def test_other_gpus_are_not_asked(monkeypatch):
    """Each would take a few hundred megabytes in each process of a run on several GPUs."""
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    monkeypatch.setattr(
        torch.random, "fork_rng", lambda devices: asked.extend(devices) or contextlib.nullcontext()
    )
    with preserve_rng_state():
        pass
    assert asked == [2]
