"""The learning rates of the published program: constant within an epoch, after a linear warm-up."""

from __future__ import annotations

import math
from collections.abc import Callable

from trainers.schedules import Schedule, multistep, warmed_up

MILESTONES, GAMMA = (30, 60, 80), 0.1
"""Of the step schedule: epochs, counted from 0 with the warm-up included, and the factor at each."""
SCHEDULES = ("step", "linear", "cosine")


def find_schedule(kind: str, lr: float, steps_per_epoch: int, num_epochs: int, warmup: int) -> Schedule:
    """Learning rate by optimizer steps done.

    With x, the part of the epochs after the warm-up that are done: `linear` is lr · (1 − x), `cosine`
    ½ · lr · (1 + cos(π x)). `step` multiplies lr by 0.1 at epochs 30, 60 and 80.

    Args:
        kind: one of SCHEDULES.
        lr: the highest rate.
        steps_per_epoch: optimizer steps of an epoch.
        num_epochs: of the whole training.
        warmup: epochs, in each of which the rate is lr · (epoch + 1) / warmup.
    """
    shapes: dict[str, Callable[[float], float]] = {
        "linear": lambda done: 1 - done,
        "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    }

    def by_epoch(step: int) -> float:
        return lr * shapes[kind]((step // steps_per_epoch - warmup) / (num_epochs - warmup))

    schedule = multistep(lr, steps_per_epoch, MILESTONES, GAMMA) if kind == "step" else by_epoch
    return warmed_up(schedule, lr, steps_per_epoch, warmup)
