"""The training loop. Reports and checkpoints are callbacks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genutil.distributed.world import ALONE, World
from genutil.exceptions import NotFiniteError
from genutil.seeding import restore_rng_state, rng_state
from genutil.signals import Interrupted, StopRequest
from trainers.batches import Batches
from trainers.callback_base import Callback, CallbackList
from trainers.captured import StepFunction
from trainers.criterion import Criterion
from trainers.evaluation import evaluate
from trainers.metrics import Meter
from trainers.optimizers import load_optimizer_state, optimizer_names, set_lr
from trainers.parallel import DataParallelModel
from trainers.precision import Precision
from trainers.schedules import Schedule

_ADVICE = "try a smaller lr, a longer warm-up or another seed; the last good checkpoint is kept"


class Trainer:
    """Trains a network and validates it after each epoch, or after every few.

    Args:
        model, optimizer: the network, on the world's device, and its optimizer.
        schedule: learning rate of a step, by its index from 0.
        train, val: batches of training and validation on the world's device; with several processes, the
            shards of this one. `val` is None without validation.
        num_epochs: passes over `train`.
        topk: values of k of the top-k accuracies.
        log_interval: steps between two readings of the metrics; no other step waits for the device.
        callbacks: called in this order at every event.
        precision: mixed precision; float32 by default.
        accumulate: microbatches per step and process.
        world: the processes of the run.
        stop: receives stop signals; a new one by default.
        criterion: loss function; cross-entropy by default.
        observe: returns further metrics of the last step; they are added to an epoch's training metrics.
        validate_every: epochs from one validation to the next; the last epoch is always validated.
        captured_step: function that makes a whole training step (forward and backward pass, update) of a
            batch, such as CapturedStep. Only for one process, one microbatch, no mixup, and callbacks that do
            not read gradients.

    Attributes:
        epoch: index of the current epoch, from 0.
        batch: number of batches done in it.
        step: number of optimizer steps done in all epochs.
        epoch_finished: whether the current epoch is trained and, if it is to be, validated.
        lr: learning rate of the current or the last step.
        meter: sums of the training metrics of the current epoch.
        train_metrics: training metrics of the current epoch over all processes, as of the last reading.
        best_val: best validation accuracy (the first of `topk`, percent); −1 before the first validation.
        improved: whether the last epoch was validated and was the best so far.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        train: Batches,
        val: Batches | None,
        num_epochs: int,
        topk: Sequence[int],
        log_interval: int,
        callbacks: Sequence[Callback] = (),
        precision: Precision | None = None,
        accumulate: int = 1,
        world: World = ALONE,
        stop: StopRequest | None = None,
        criterion: Criterion | None = None,
        observe: Callable[[], Mapping[str, float]] = dict,
        validate_every: int = 1,
        captured_step: StepFunction | None = None,
    ) -> None:
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.train, self.val, self.num_epochs = train, val, num_epochs
        self.topk, self.log_interval, self.accumulate = tuple(topk), log_interval, accumulate
        self.callbacks = CallbackList(callbacks)
        self.precision = precision or Precision(None, world.device)
        self.criterion, self.observe = criterion or Criterion(), observe
        self.validate_every = validate_every
        self.world, self.stop, self.captured_step = world, stop or StopRequest(), captured_step
        self.parallel = DataParallelModel(model, world, self.stop, self.precision.autocast)
        self.epoch = self.batch = self.step = 0
        self.epoch_finished = False
        self.lr = float(optimizer.param_groups[0]["lr"])
        self.meter = Meter(self.topk, world.device, world)
        self.train_metrics: dict[str, float] = {}
        self.best_val, self.improved = -1.0, False

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.num_epochs * len(self.train)

    @property
    def will_validate(self) -> bool:
        """Whether the current epoch ends with a validation."""
        done = self.epoch + 1
        is_due = done % self.validate_every == 0 or done == self.num_epochs
        return self.val is not None and is_due

    def fit(self) -> dict[str, float]:
        """Train to the end.

        Returns:
            The metrics of the last validation; those of training if there is no validation. If no epoch is
            left to train, those of a validation, or none.

        Raises:
            NotFiniteError: the loss or a weight became NaN or infinite; no checkpoint was written since.
            Interrupted: a signal stopped the training; callbacks have saved its state.
        """
        metrics: dict[str, float] = {}
        with self.stop:
            self.callbacks.on_start(self)
            try:
                while self.epoch < self.num_epochs:
                    self._train_epoch()
                    metrics = self._validate()
                    self.epoch_finished = True
                    self.callbacks.on_epoch_end(self)
                    self.epoch, self.batch, self.epoch_finished = self.epoch + 1, 0, False
                    self.meter = Meter(self.topk, self.world.device, self.world)
                    self.world.raise_if_stopped(self.stop)
            except Interrupted:
                self.read_meter()  # raises if the training has diverged: such a state is not saved
                self.callbacks.on_interrupt(self)
                raise
            except NotFiniteError as error:
                raise NotFiniteError(f"{error} (step {self.step}); {_ADVICE}") from error
            finally:
                self.callbacks.on_end(self)
        if not metrics and self.val is not None:  # no epoch was left to train
            return self._evaluate(self.val)
        return metrics

    def _train_epoch(self) -> None:
        started, images_before = time.monotonic(), self.meter.images()
        self.model.train()
        self.callbacks.on_epoch_start(self)
        for images, labels in self.train.batches(self.epoch, self.batch):
            self.train_step(images, labels)
            self.callbacks.on_step(self)
            if self.step % self.log_interval == 0:
                self.read_meter()
                self.callbacks.on_log(self)
            signum = self.parallel.stop_signal()
            if signum is not None:
                raise Interrupted(signum)
        self.read_meter()
        seconds = time.monotonic() - started
        speed = (self.meter.images() - images_before) / max(seconds, 1e-9)
        metrics = {**self.train_metrics, "epoch_time": seconds, "images_per_second": speed, **self.observe()}
        self.callbacks.on_metrics(self, "train", metrics)

    def train_step(self, images: Tensor, labels: Tensor) -> None:
        """One optimizer step.

        Args:
            images, labels: this process's shard of the batch.
        """
        self.lr = self.schedule(self.step)
        set_lr(self.optimizer, self.lr)
        if self.captured_step is not None:
            self.meter.update(*self.captured_step(images, labels), labels)
        else:
            self._update(images, labels)
        self.batch += 1
        self.step += 1

    def _update(self, images: Tensor, labels: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        for batch in self.parallel.microbatches(images, labels, self.accumulate):
            mixed = self.criterion.prepare(
                batch.images, batch.labels, self.step, self.world.rank, batch.index
            )
            with batch.sync_context():
                with self.precision.autocast():
                    logits = self.parallel(mixed.images)
                    loss = self.criterion(logits, mixed)
                self.precision.backward(loss * batch.loss_weight)  # gradients add up to those of the mean
            self.meter.update(loss, logits, batch.labels)
        if self.parallel.num_images():  # none where no image of the batch could be read
            if self.callbacks.acts_on_gradients:
                self.precision.unscale(self.optimizer)
                self.callbacks.before_optimizer_step(self)
            self.precision.step(self.optimizer)

    def _validate(self) -> dict[str, float]:
        self.improved = False
        if self.val is None or not self.will_validate:
            return self.train_metrics
        self.callbacks.on_validation_start(self, len(self.val))
        metrics = self._evaluate(self.val, self._after_validation_batch)
        _raise_if_not_finite(metrics, "validation loss")
        accuracy = metrics[f"top{self.topk[0]}_accuracy"]
        self.improved = accuracy > self.best_val
        self.best_val = max(accuracy, self.best_val)
        self.callbacks.on_metrics(self, "val", {**metrics, "best_val": self.best_val})
        return metrics

    def _after_validation_batch(self, images: int, meter: Meter) -> None:
        self.callbacks.on_validation_step(self, images, meter)
        self.world.raise_if_stopped(self.stop)

    def _evaluate(
        self, batches: Batches, after_batch: Callable[[int, Meter], object] | None = None
    ) -> dict[str, float]:
        self.world.broadcast_buffers(self.model)
        with self.precision.autocast():
            return evaluate(self.model, batches, self.topk, after_batch, self.world)

    def read_meter(self) -> None:
        """Read the metrics of the current epoch, over all processes.

        Raises:
            NotFiniteError: the loss is NaN or infinite.
        """
        self.train_metrics = self.meter.read()
        _raise_if_not_finite(self.train_metrics, "training loss")

    def state_dict(self) -> dict[str, Any]:
        """State of the training, under the keys of the published checkpoints.

        To be called in all processes: buffers and metrics are exchanged.
        """
        self.world.broadcast_buffers(self.model)
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "optimizer_names": optimizer_names(self.optimizer, self.model),
            "last_epoch": self.epoch if self.epoch_finished else self.epoch - 1,
            "best_val": self.best_val,
            "iter": self.step,
            "scheduler": {"lr": self.lr},
            "scaler": self.precision.state_dict(),
            "rng": rng_state(),
            "epoch_progress": {
                "batch": 0 if self.epoch_finished else self.batch,
                "batches": len(self.train),
                "meter": None if self.epoch_finished else self.meter.state_dict(),
            },
            "callbacks": self.callbacks.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned. The optimizer keeps its settings.

        For checkpoint files, which may lack keys, see `trainers.checkpointing.resumable_state`.
        """
        progress = state["epoch_progress"]
        self.model.load_state_dict(state["model"])
        load_optimizer_state(self.optimizer, state["optimizer"])
        self.precision.load_state_dict(state["scaler"])
        restore_rng_state(state["rng"])
        self.epoch, self.batch, self.step = state["last_epoch"] + 1, progress["batch"], state["iter"]
        self.best_val, self.lr = state["best_val"], state["scheduler"]["lr"]
        set_lr(self.optimizer, self.lr)
        if progress["meter"] is not None:
            self.meter.load_state_dict(progress["meter"])
        self.callbacks.load_state_dict(state["callbacks"])


def _raise_if_not_finite(metrics: Mapping[str, float], name: str) -> None:
    if not math.isfinite(metrics["CELoss"]):
        raise NotFiniteError(f"the {name} is {metrics['CELoss']}")
