"""The training loop. Everything that is not training or counting is a callback's work."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from genutil.distributed.world import ALONE, StepStatus, World
from genutil.errors import NotFiniteError
from genutil.signals import Interrupted, StopRequest
from trainers.batches import Batches
from trainers.callbacks import Callback, reads_gradients
from trainers.captured import StepFunction
from trainers.evaluation import evaluate
from trainers.metrics import Meter
from trainers.objective import Objective
from trainers.parallel import Replicas
from trainers.precision import Precision
from trainers.schedules import Schedule

_ADVICE = "try a smaller lr, a longer warm-up or another seed; the last good checkpoint is kept"


class Trainer:
    """Trains a network and validates it after each epoch.

    Args:
        model, optimizer: the network, on its device, and what trains it.
        schedule: learning rate by optimizer steps done, set before each step.
        train, val: training and validation batches; of several processes, this one's share. Without `val`
            nothing is validated.
        num_epochs: passes over `train`.
        topk: which accuracies to count.
        device: where the batches are used.
        log_interval: steps between two readings of the metrics; in between the device is never waited for.
        callbacks: called at every event, in this order.
        amp, loss_scale: see trainers.precision.Precision.
        accumulate: parts in which a share of a batch is taken.
        world: the processes that train together.
        stop: notes signals; a new one by default.
        objective: what is minimised; plain cross-entropy by default.
        observe: gives further numbers of the last step, which are told with each epoch's training metrics.
        capture: makes the function that runs forward pass, backward pass and update of a whole batch, from
            the plain one; such as CapturedStep. Only for one process, whole shares and plain cross-entropy.

    Attributes:
        epoch, batch, step: the epoch at hand, its batches done, all optimizer steps done.
        lr: the learning rate of the step at hand or just done.
        running: metrics of the epoch at hand, as read last; of all processes.
        best_val: best validation accuracy (the first of `topk`, percent); −1 before the first validation.
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
        device: torch.device,
        log_interval: int,
        callbacks: Sequence[Callback] = (),
        amp: str | None = None,
        loss_scale: float | None = None,
        accumulate: int = 1,
        world: World = ALONE,
        stop: StopRequest | None = None,
        objective: Objective | None = None,
        observe: Callable[[], Mapping[str, float]] = dict,
        capture: Callable[[StepFunction], StepFunction] | None = None,
    ) -> None:
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.train, self.val, self.num_epochs = train, val, num_epochs
        self.topk, self.device, self.log_interval = tuple(topk), device, log_interval
        self.callbacks, self.observe = tuple(callbacks), observe
        self.epoch = self.batch = self.step = 0
        self.best_val = -1.0
        self.improved = False
        self.running: dict[str, float] = {}
        self.meter = Meter(self.topk, device, world)
        self.world, self.accumulate = world, accumulate
        self.replicas = Replicas(model, world)
        self.precision = Precision(amp, device, loss_scale)
        self.objective = objective or Objective()
        self.stop = stop or StopRequest()
        self.lr = float(optimizer.param_groups[0]["lr"])
        self._captured = None if capture is None else capture(self._update)
        if capture is not None:  # a number would become a constant of the captured step
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(self.lr, device=device)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.num_epochs * len(self.train)

    def fit(self) -> dict[str, float]:
        """Train to the end; returns the last validation's metrics, or those of training if there is none.

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
                    self.meter = Meter(self.topk, self.device, self.world)
                    self.world.raise_if_stopped(self.stop)
            except Interrupted:
                self.read_meter()  # never save what has diverged
                self._tell("on_interrupt")
                raise
            except NotFiniteError as error:
                raise NotFiniteError(f"{error} (step {self.step}); {_ADVICE}") from error
            finally:
                self._tell("on_end")
        return metrics or (self._evaluate(self.val) if self.val is not None else self.running)

    def _train_epoch(self) -> None:
        started, first = time.monotonic(), self.meter.images()
        self.model.train()
        self._tell("on_epoch_start")
        for images, labels in self.train.batches(self.epoch, self.batch):
            agreement = self.world.all_reduce_step_status(len(labels), self.stop.signum)
            images, labels = (
                images.to(self.device, non_blocking=True),
                labels.to(self.device, non_blocking=True),
            )
            self._train_step(images, labels, agreement)
            if self.step % self.log_interval == 0:
                self.read_meter()
                self._tell("on_log")
            signum = agreement().signum if self.world.size > 1 else self.stop.signum
            if signum is not None:
                raise Interrupted(signum)
        self.read_meter()
        seconds = time.monotonic() - started
        speed = (self.meter.images() - first) / max(seconds, 1e-9)
        further = {"epoch_time": seconds, "images_per_second": speed, **self.observe()}
        self._tell("on_metrics", "train", {**self.running, **further})

    def _train_step(
        self, images: torch.Tensor, labels: torch.Tensor, agreement: Callable[[], StepStatus]
    ) -> None:
        """One update by a batch of which this is the process's share."""
        self._set_lr(self.schedule(self.step))
        if self._captured is not None:
            self.meter.update(*self._captured(images, labels), labels)
            self._end_step()
            return
        self.replicas.settle(images)
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.replicas.parts(images, labels, self.accumulate)
        for part, (some, theirs, is_last) in enumerate(parts):
            mixed = self.objective.mix(some, theirs, self.step, self.world.rank, part)
            with self.replicas.backward_of_part(is_last):
                with self.precision.autocast():
                    logits = self.replicas(mixed.images)
                    loss = self.objective.loss(logits, mixed) if len(theirs) else logits.sum() * 0
                self.precision.backward(loss * self.replicas.weight(len(theirs), agreement().images))
            if len(theirs):
                self.meter.update(loss, logits, theirs)
        if agreement().images:  # none where no image of a batch can be read
            self._before_optimizer_step()
            self.precision.step(self.optimizer)
        self._end_step()

    def _before_optimizer_step(self) -> None:
        waiting = [callback for callback in self.callbacks if reads_gradients(type(callback))]
        if waiting:
            self.precision.unscale(self.optimizer)
        for callback in waiting:
            callback.before_optimizer_step(self)

    def _update(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The update by a whole batch; gives its loss and logits."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.precision.autocast():
            logits = self.model(images)
            loss = self.objective.loss(logits, self.objective.mix(images, labels, self.step))
        self.precision.backward(loss)
        self.precision.step(self.optimizer)
        return loss.detach(), logits.detach()

    def _set_lr(self, lr: float) -> None:
        self.lr = lr
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def _end_step(self) -> None:
        self.batch += 1
        self.step += 1
        self._tell("on_step")

    def _validate(self) -> dict[str, float]:
        if self.val is None:
            return self.running
        self._tell("on_validation_start", len(self.val))
        metrics = self._evaluate(self.val, self._after_validation_batch)
        self._check(metrics, "validation loss")
        accuracy = metrics[f"top{self.topk[0]}_accuracy"]
        self.improved = accuracy > self.best_val
        self.best_val = max(accuracy, self.best_val)
        self._tell("on_metrics", "val", {**metrics, "best_val": self.best_val})
        return metrics

    def _after_validation_batch(self, images: int, meter: Meter) -> None:
        self._tell("on_validation_step", images, meter)
        self.world.raise_if_stopped(self.stop)

    def _evaluate(
        self, batches: Batches, after_batch: Callable[[int, Meter], object] | None = None
    ) -> dict[str, float]:
        self.world.broadcast_buffers(self.model)
        with self.precision.autocast():
            return evaluate(self.model, batches, self.topk, self.device, after_batch, self.world)

    def read_meter(self) -> None:
        """Read the metrics of the epoch so far, of all processes.

        Raises:
            NotFiniteError: the loss is NaN or infinite.
        """
        self.running = self.meter.read()
        self._check(self.running, "training loss")

    def _check(self, metrics: dict[str, float], name: str) -> None:
        if not math.isfinite(metrics["CELoss"]):
            raise NotFiniteError(f"the {name} is {metrics['CELoss']}")

    def _tell(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *arguments)
