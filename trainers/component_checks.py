"""Checks of the components that an experiment names: data sets, optimizers, schedules, callbacks.

Each mistake is a ConfigError that names the key, before training starts.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Sized
from typing import Any

import torch
from torch import nn

from genutil.exceptions import ConfigError
from genutil.user_code import is_user_code, user_code_errors_explained
from trainers.batches import Batches
from trainers.callback_base import Callback
from trainers.schedules import Schedule


def check_data(data: Any, path: str, names: Iterable[str]) -> None:
    """Check that a data set has batches.

    Args:
        data: the data set.
        path: its `module:Class` in the experiment.
        names: attributes that must hold batches: `train`, `val`.

    Raises:
        ConfigError: one of them is missing, is not a source of batches, or is empty.
    """
    for name in names:
        source = getattr(data, name, None)
        if source is None:
            raise ConfigError(f"data: {path} must have the attribute {name}, which holds batches")
        if not isinstance(source, (Batches, Iterable)):
            raise ConfigError(
                f"data: {path}: {name} must be a DataLoader or have a method batches(), "
                f"got {type(source).__name__}"
            )
        if not isinstance(source, Sized):
            raise ConfigError(f"data: {path}: {name} must have a length, the number of its batches")
        with user_code_errors_explained(f"data: {path}", path, f": the length of {name}"):
            count = len(source)
        if not count:
            raise ConfigError(f"data: {path}: {name} has no batches")


def checked_callback(kind: Any, path: str) -> type[Callback]:
    """The class that `callbacks` names.

    Raises:
        ConfigError: it is not a subclass of Callback.
    """
    if not (inspect.isclass(kind) and issubclass(kind, Callback)):
        raise ConfigError(f"callbacks: {path} must be a subclass of trainers.callbacks.Callback")
    return kind


def check_parameters(model: nn.Module, path: str) -> None:
    """Check that a network has parameters to train.

    Raises:
        ConfigError: no parameter has a gradient.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"model: {path} has no parameters to train")


def checked_optimizer(optimizer: Any, path: str) -> torch.optim.Optimizer:
    """The optimizer that the factory `path` returned.

    Raises:
        ConfigError: it is not a torch.optim.Optimizer.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        kind = type(optimizer).__name__
        raise ConfigError(f"optimizer: {path} must return a torch.optim.Optimizer, got {kind}")
    return optimizer


def checked_schedule(schedule: Any, path: str) -> Schedule:
    """The schedule that the factory `path` returned. Every rate of a user's schedule is checked.

    Raises:
        ConfigError: it is not a function, or returns no finite number for the first step.
    """
    name = f"lr_scheduler: {path}"
    if not callable(schedule):
        raise ConfigError(
            f"{name} must return a function from the number of steps done to the learning rate, "
            f"got {type(schedule).__name__}"
        )
    if ":" not in path or not is_user_code(path):
        return schedule  # type: ignore[no-any-return]

    def rate(step: int) -> float:
        with user_code_errors_explained(name, path, f": the function for step {step}"):
            value = schedule(step)
        return _finite(value, f"{name}: the function for step {step}")

    rate(0)
    return rate


def _finite(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if isinstance(value, str) or not math.isfinite(number):
        raise ConfigError(f"{name} must return a finite number, got {str(value)[:80]}")
    return number
