"""Checks of what an experiment names: data sets, optimizers, schedules and callbacks of the user's own.

Each mistake is a ConfigError that names the key, before training starts.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from genutil.errors import ConfigError
from genutil.user_code import foreign_errors_named, is_foreign
from trainers.callbacks import Callback
from trainers.schedules import Schedule


def check_data(data: Any, path: str, names: Iterable[str]) -> None:
    """Whether a data set has batches.

    Args:
        data: the data set.
        path: what the experiment's `data` names.
        names: attributes that must hold batches: `train`, `val`.

    Raises:
        ConfigError: one of them is missing, is no source of batches, or is empty.
    """
    for name in names:
        source = getattr(data, name, None)
        if source is None:
            raise ConfigError(f"data: {path} must have the attribute {name}, which holds batches")
        if not (hasattr(source, "batches") or hasattr(source, "__iter__")):
            raise ConfigError(
                f"data: {path}: {name} must be a DataLoader or have a method batches(), "
                f"got {type(source).__name__}"
            )
        if not hasattr(source, "__len__"):
            raise ConfigError(f"data: {path}: {name} must have a length, the number of its batches")
        with foreign_errors_named(f"data: {path}", path, f": the length of {name}"):
            count = len(source)
        if not count:
            raise ConfigError(f"data: {path}: {name} has no batches")


def checked_callback(kind: Any, path: str) -> type[Callback]:
    """A class of callbacks.

    Raises:
        ConfigError: it is none.
    """
    if not (inspect.isclass(kind) and issubclass(kind, Callback)):
        raise ConfigError(f"callbacks: {path} must be a subclass of trainers.callbacks.Callback")
    return kind


def check_parameters(model: nn.Module, path: str) -> None:
    """Whether there is anything to train.

    Raises:
        ConfigError: no parameter takes a gradient.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"model: {path} has no parameters to train")


def checked_optimizer(optimizer: Any, path: str) -> torch.optim.Optimizer:
    """An optimizer that the factory `path` has made.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        kind = type(optimizer).__name__
        raise ConfigError(f"optimizer: {path} must return a torch.optim.Optimizer, got {kind}")
    return optimizer


def checked_schedule(schedule: Any, path: str) -> Schedule:
    """A schedule that the factory `path` has made; of the user's own, every rate that it gives is checked.

    Raises:
        ConfigError: it is no function, or gives no finite number for the first step.
    """
    what = f"lr_scheduler: {path}"
    if not callable(schedule):
        raise ConfigError(
            f"{what} must return a function from the number of steps done to the learning rate, "
            f"got {type(schedule).__name__}"
        )
    if ":" not in path or not is_foreign(path):
        return schedule  # type: ignore[no-any-return]

    def rate(step: int) -> float:
        with foreign_errors_named(what, path, f": the function for step {step}"):
            value = schedule(step)
        return _finite(value, f"{what}: the function for step {step}")

    rate(0)
    return rate


def _finite(value: Any, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if isinstance(value, str) or not math.isfinite(number):
        raise ConfigError(f"{what} must return a finite number, got {str(value)[:80]}")
    return number
