"""Learning-rate schedules: pure functions of the number of optimizer steps done.

A schedule factory takes keys of the experiment by their names, and `steps_per_epoch`, and returns a function.
A factory of your own is named in an experiment as `lr_scheduler: my_module:my_factory`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from genutil.config.components import locate
from genutil.config.registries import LR_SCHEDULES

Schedule = Callable[[int], float]


def multistep(
    lr: float,
    steps_per_epoch: int,
    multistep_lr_milestones: Sequence[int],
    multistep_lr_gamma: float,
) -> Schedule:
    """`lr`, multiplied by gamma at the start of each milestone's epoch (counted from 0)."""
    milestones = list(multistep_lr_milestones)
    return lambda step: lr * multistep_lr_gamma ** bisect_right(milestones, step // steps_per_epoch)


def cosine(lr: float, steps_per_epoch: int, num_epochs: int, warmup: int = 0) -> Schedule:
    """½ · lr · (1 + cos(π t / T)) in update t = 1..T, T being the updates after the warm-up."""
    first, total = steps_per_epoch * warmup, steps_per_epoch * (num_epochs - warmup)
    return lambda step: 0.5 * lr * (1 + math.cos(math.pi * (step - first + 1) / total))


def linear_decaying(lr: float, steps_per_epoch: int, num_epochs: int, warmup: int = 0) -> Schedule:
    """Lower by lr / T in every update t = 1..T after the warm-up: lr · (1 − t / T)."""
    first, total = steps_per_epoch * warmup, steps_per_epoch * (num_epochs - warmup)
    return lambda step: lr * (1 - (step - first + 1) / total)


def epoch_cosine(lr: float, steps_per_epoch: int, num_epochs: int, warmup: int = 0) -> Schedule:
    """½ · lr · (1 + cos(π x)), x being the fraction of the epochs after the warm-up that are done."""
    return lambda step: (
        0.5 * lr * (1 + math.cos(math.pi * (step // steps_per_epoch - warmup) / (num_epochs - warmup)))
    )


def epoch_linear(lr: float, steps_per_epoch: int, num_epochs: int, warmup: int = 0) -> Schedule:
    """lr · (1 − x), x being the fraction of the epochs after the warm-up that are done."""
    return lambda step: lr * (1 - (step // steps_per_epoch - warmup) / (num_epochs - warmup))


def exp_decaying(lr: float, steps_per_epoch: int, exp_decaying_lr_gamma: float) -> Schedule:
    """lr · gamma^epoch."""
    return lambda step: lr * exp_decaying_lr_gamma ** (step // steps_per_epoch)


def warmed_up(schedule: Schedule, lr: float, steps_per_epoch: int, warmup: int) -> Schedule:
    """lr · (epoch + 1) / warmup in the first `warmup` epochs, in place of the schedule's rate.

    Milestones are counted from the first epoch of the warm-up.
    """
    if not warmup:
        return schedule

    def rate(step: int) -> float:
        epoch = step // steps_per_epoch
        return lr * (epoch + 1) / warmup if epoch < warmup else schedule(step)

    return rate


def find_lr_schedule(lr_scheduler: str) -> Callable[..., Any]:
    """The factory of this name, or of `module:function`.

    Raises:
        ConfigError: there is no such module or function.
    """
    return locate(LR_SCHEDULES.get(lr_scheduler, lr_scheduler), "lr_scheduler")  # type: ignore[no-any-return]
