"""The training loop. Everything that is not training or counting is a callback's work."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from genutil.errors import NotFiniteError
from genutil.signals import Interrupted, StopRequest
from trainers.batches import Batches
from trainers.callbacks import Callback
from trainers.evaluation import evaluate
from trainers.metrics import Meter
from trainers.precision import Precision
from trainers.schedules import Schedule

_ADVICE = "try a smaller lr, a longer warm-up or another seed; the last good checkpoint is kept"


class Trainer:
    """Trains a network and validates it after each epoch.

    Args:
        model, optimizer: the network, on its device, and what trains it.
        schedule: learning rate by optimizer steps done, set before each step.
        train, val: training and validation batches.
        num_epochs: passes over `train`.
        topk: which accuracies to count.
        device: where the batches are used.
        log_interval: steps between two readings of the metrics; in between the device is never waited for.
        callbacks: told of every event, in this order.
        amp: see trainers.precision.Precision.
        observe: gives further numbers of the last step, which are told with each epoch's training metrics.

    Attributes:
        epoch, batch, step: the epoch at hand, its batches done, all optimizer steps done.
        best_val: best validation accuracy (the first of `topk`, percent); −1 before the first validation.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        train: Batches,
        val: Batches,
        num_epochs: int,
        topk: Sequence[int],
        device: torch.device,
        log_interval: int,
        callbacks: Sequence[Callback] = (),
        amp: str | None = None,
        observe: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.train, self.val, self.num_epochs = train, val, num_epochs
        self.topk, self.device, self.log_interval = tuple(topk), device, log_interval
        self.callbacks, self.observe = tuple(callbacks), observe
        self.epoch = self.batch = self.step = 0
        self.best_val = -1.0
        self.improved = False
        self.meter = Meter(self.topk, device)
        self.precision = Precision(amp, device)
        self.stop = StopRequest()

    @property
    def lr(self) -> float:
        """The learning rate of the step at hand or just done."""
        return float(self.optimizer.param_groups[0]["lr"])

    def fit(self) -> dict[str, float]:
        """Train to the end; returns the last validation's metrics.

        Raises:
            NotFiniteError: the loss or a weight became NaN or infinite; nothing was saved since.
            Interrupted: a signal asked to stop; callbacks have saved the state.
        """
        metrics: dict[str, float] = {}
        with self.stop:
            self._tell("on_start")
            try:
                while self.epoch < self.num_epochs:
                    self._train_epoch()
                    metrics = self._validate()
                    self._tell("on_epoch_end")
                    self.epoch, self.batch = self.epoch + 1, 0
                    self.meter = Meter(self.topk, self.device)
                    self._stop_if_asked()
            except Interrupted:
                self._check(self.meter.read(), "training loss")  # never save what has diverged
                self._tell("on_interrupt")
                raise
            except NotFiniteError as error:
                raise NotFiniteError(f"{error} (step {self.step}); {_ADVICE}") from error
            finally:
                self._tell("on_end")
        return metrics or self._evaluate()

    def _train_epoch(self) -> None:
        started, first = time.monotonic(), self.meter.num_images
        self.model.train()
        for images, labels in self.train.batches(self.epoch, self.batch):
            self._train_step(
                images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
            )
            if self.step % self.log_interval == 0:
                self._check(self.meter.read(), "training loss")
                self._tell("on_log")
            self._stop_if_asked()
        metrics = self.meter.read()
        self._check(metrics, "training loss")
        seconds = time.monotonic() - started
        speed = (self.meter.num_images - first) / max(seconds, 1e-9)
        further = {"epoch_time": seconds, "images_per_second": speed, **self.observe()}
        self._tell("on_metrics", "train", {**metrics, **further})

    def _train_step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        lr = self.schedule(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with self.precision.autocast():
            logits = self.model(images)
            loss = F.cross_entropy(logits, labels)
        self.optimizer.zero_grad(set_to_none=True)
        self.precision.step(loss, self.optimizer)
        self.meter.update(loss, logits, labels)
        self.batch += 1
        self.step += 1
        self._tell("on_step")

    def _validate(self) -> dict[str, float]:
        metrics = self._evaluate(after_batch=self._stop_if_asked)
        self._check(metrics, "validation loss")
        accuracy = metrics[f"top{self.topk[0]}_accuracy"]
        self.improved = accuracy > self.best_val
        self.best_val = max(accuracy, self.best_val)
        self._tell("on_metrics", "val", {**metrics, "best_val": self.best_val})
        return metrics

    def _evaluate(self, after_batch: Callable[[], object] | None = None) -> dict[str, float]:
        with self.precision.autocast():
            return evaluate(self.model, self.val, self.topk, self.device, after_batch)

    def _check(self, metrics: dict[str, float], name: str) -> None:
        if not math.isfinite(metrics["CELoss"]):
            raise NotFiniteError(f"the {name} is {metrics['CELoss']}")

    def _stop_if_asked(self) -> None:
        if self.stop.signum is not None:
            raise Interrupted(self.stop.signum)

    def _tell(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *arguments)
