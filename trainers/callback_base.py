"""Callbacks: the events of a training, a list of callbacks, and wrappers that set how often one is called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from genutil.distributed.world import World
from trainers.batches import Batches
from trainers.metrics import Meter


class Training(Protocol):
    """What callbacks may read of a training: see `trainers.trainer.Trainer`."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    train: Batches
    val: Batches | None
    num_epochs: int
    topk: tuple[int, ...]
    epoch: int
    batch: int
    step: int
    lr: float
    meter: Meter
    train_metrics: dict[str, float]
    best_val: float
    improved: bool
    world: World

    @property
    def total_steps(self) -> int: ...

    @property
    def will_validate(self) -> bool: ...

    def read_meter(self) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...


class Callback:
    """Methods that are called at the events of a training; a subclass defines those that it needs.

    Of several processes, only the first one has callbacks that write or show something. A class of your own
    is named in an experiment under `callbacks`; see docs/adding.md.
    """

    on_all_processes: ClassVar[bool] = False
    """Whether an experiment's callback is used in all processes of a run, or in the first one only."""

    def state_dict(self) -> dict[str, Any]:
        """State that a resumed training needs, of tensors, numbers and strings; it is part of checkpoints."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state_dict`. Called before `on_start`, unless the checkpoint has none."""

    def on_start(self, trainer: Training) -> None:
        """Before the first step of this process."""

    def on_epoch_start(self, trainer: Training) -> None:
        """Before the first step of an epoch, or of the rest of an epoch after a resume."""

    def before_optimizer_step(self, trainer: Training) -> None:
        """After the backward pass of a whole batch and before the optimizer's step.

        The gradients are those of all processes, without the loss scale of fp16 (where they may be infinite:
        such a step is skipped). Not called in steps that are CUDA graphs. Must not wait for the device.
        """

    def on_step(self, trainer: Training) -> None:
        """After each optimizer step. Must not wait for the device."""

    def on_log(self, trainer: Training) -> None:
        """Every `log_interval` steps, when `trainer.train_metrics` has been updated."""

    def on_validation_start(self, trainer: Training, batches: int) -> None:
        """Before the first of `batches` validation batches."""

    def on_validation_step(self, trainer: Training, images: int, meter: Meter) -> None:
        """After each validation batch. Must not wait for the device.

        Args:
            trainer: the training.
            images: number of images of the batch in this process.
            meter: metrics of the validation so far.
        """

    def on_metrics(self, trainer: Training, phase: str, metrics: dict[str, float]) -> None:
        """Once an epoch for the phase `train` and once for `val`."""

    def on_epoch_end(self, trainer: Training) -> None:
        """After an epoch and its validation, if it has one.

        `trainer.improved` says whether the epoch was validated and was the best so far.
        """

    def on_interrupt(self, trainer: Training) -> None:
        """After the last step, if a signal stops the training."""

    def on_end(self, trainer: Training) -> None:
        """At the end of the training, also after an error or a signal."""


def acts_on_gradients(callback_class: type[Callback]) -> bool:
    """Whether a class of callbacks acts between the backward pass and the optimizer's step."""
    return callback_class.before_optimizer_step is not Callback.before_optimizer_step


class CallbackList(Callback):
    """Calls several callbacks, in their order, at every event.

    Attributes:
        acts_on_gradients: whether one of them acts between the backward pass and the optimizer's step.
    """

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self.callbacks = tuple(callbacks)
        self.acts_on_gradients = any(acts_on_gradients(type(callback)) for callback in self.callbacks)

    def state_dict(self) -> dict[str, Any]:
        """States of the callbacks that have one, by the paths of their classes."""
        states = {_path(callback): callback.state_dict() for callback in self.callbacks}
        return {path: state for path, state in states.items() if state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for callback in self.callbacks:
            if _path(callback) in state:
                callback.load_state_dict(state[_path(callback)])

    def on_start(self, trainer: Training) -> None:
        for callback in self.callbacks:
            callback.on_start(trainer)

    def on_epoch_start(self, trainer: Training) -> None:
        for callback in self.callbacks:
            callback.on_epoch_start(trainer)

    def before_optimizer_step(self, trainer: Training) -> None:
        for callback in self.callbacks:
            callback.before_optimizer_step(trainer)

    def on_step(self, trainer: Training) -> None:
        for callback in self.callbacks:
            callback.on_step(trainer)

    def on_log(self, trainer: Training) -> None:
        for callback in self.callbacks:
            callback.on_log(trainer)

    def on_validation_start(self, trainer: Training, batches: int) -> None:
        for callback in self.callbacks:
            callback.on_validation_start(trainer, batches)

    def on_validation_step(self, trainer: Training, images: int, meter: Meter) -> None:
        for callback in self.callbacks:
            callback.on_validation_step(trainer, images, meter)

    def on_metrics(self, trainer: Training, phase: str, metrics: dict[str, float]) -> None:
        for callback in self.callbacks:
            callback.on_metrics(trainer, phase, metrics)

    def on_epoch_end(self, trainer: Training) -> None:
        for callback in self.callbacks:
            callback.on_epoch_end(trainer)

    def on_interrupt(self, trainer: Training) -> None:
        for callback in self.callbacks:
            callback.on_interrupt(trainer)

    def on_end(self, trainer: Training) -> None:
        for callback in self.callbacks:
            callback.on_end(trainer)


def _path(callback: Callback) -> str:
    return f"{type(callback).__module__}:{type(callback).__qualname__}"


class EverySteps(Callback):
    """Calls a function after every `interval`-th step, except the last step of an epoch.

    After that one, `on_epoch_end` is called.
    """

    def __init__(self, interval: int, function: Callable[[Training], object]) -> None:
        self.interval, self.function = interval, function

    def on_step(self, trainer: Training) -> None:
        if trainer.step % self.interval == 0 and trainer.batch < len(trainer.train):
            self.function(trainer)


def is_due(epoch: int, interval: int | None) -> bool:
    """Whether something is done after an epoch that is done every `interval` epochs: 0, N, 2N, …

    Epochs are numbered from 0. None: never.
    """
    return interval is not None and epoch % interval == 0


class EveryEpochs(Callback):
    """Calls a function after the epochs that are due (see `is_due`) and after the last one."""

    def __init__(self, interval: int, function: Callable[[Training], object]) -> None:
        self.interval, self.function = interval, function

    def on_epoch_end(self, trainer: Training) -> None:
        if is_due(trainer.epoch, self.interval) or trainer.epoch + 1 == trainer.num_epochs:
            self.function(trainer)
