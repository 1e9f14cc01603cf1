"""What watches a training: progress on the screen, metrics files, TensorBoard, checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from genutil.runs.run_folder import RunFolder
from trainers.metrics import Meter
from trainers.progress import BatchProgress, Clock
from wirings.wiring import Wiring

if TYPE_CHECKING:
    from trainers.trainer import Trainer

_log = logging.getLogger(__name__)


class Callback:
    """Called at a training's events; each method does nothing unless a subclass defines it.

    Of several processes, only the first has callbacks that write or show something. A class of your own is
    named in an experiment under `callbacks`; see docs/adding.md.
    """

    on_all_processes: ClassVar[bool] = False
    """Whether a class that an experiment names is used in all processes of a run, or in the first alone."""

    def on_start(self, trainer: Trainer) -> None:
        """Before the first step of this process."""

    def on_epoch_start(self, trainer: Trainer) -> None:
        """Before the first step of an epoch, or of what a checkpoint has left of it."""

    def before_optimizer_step(self, trainer: Trainer) -> None:
        """After the backward pass of a whole batch and before the optimizer's step: the gradients are those
        of all processes, without the loss scale of fp16 (where they may be infinite: such a step is left
        out). Not called in steps that are CUDA graphs. Must not wait for the device.
        """

    def on_step(self, trainer: Trainer) -> None:
        """After each optimizer step. Must not wait for the device."""

    def on_log(self, trainer: Trainer) -> None:
        """Every `log_interval` steps; the metrics so far are in `trainer.running`."""

    def on_validation_start(self, trainer: Trainer, batches: int) -> None:
        """Before the first of so many batches."""

    def on_validation_step(self, trainer: Trainer, images: int, meter: Meter) -> None:
        """After each batch, with its images in this process and the metrics so far. Must not wait for the
        device.
        """

    def on_metrics(self, trainer: Trainer, phase: str, metrics: dict[str, float]) -> None:
        """Once an epoch for `train` and once for `val`."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """After validation; `trainer.improved` is true if it was the best so far."""

    def on_interrupt(self, trainer: Trainer) -> None:
        """A signal asked to stop; the last step is finished."""

    def on_end(self, trainer: Trainer) -> None:
        """At the end, however it came."""


def reads_gradients(kind: type[Callback]) -> bool:
    """Whether callbacks of this class act between the backward pass and the optimizer's step."""
    return kind.before_optimizer_step is not Callback.before_optimizer_step


class WiringUpdate(Callback):
    """Lets edge rules act on the gradients of each step.

    Args:
        wiring: of the network.
    """

    on_all_processes = True

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring

    def before_optimizer_step(self, trainer: Trainer) -> None:
        self._wiring.after_backward(trainer.optimizer, trainer.step, trainer.total_steps)


class Progress(Callback):
    """A bar on a terminal. Elsewhere a plain line each logging interval, each 30 seconds and each epoch.

    Args:
        clock: see BatchProgress.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._now: BatchProgress | None = None
        self._images = 0
        self._train: dict[str, float] = {}

    def on_epoch_start(self, trainer: Trainer) -> None:
        batches = len(trainer.train)
        more = batches * (trainer.num_epochs - trainer.epoch - 1)
        self._begin(trainer, "", batches, done=trainer.batch, more=more)
        self._images = trainer.meter.num_images

    def before_optimizer_step(self, trainer: Trainer) -> None:
        """After the backward pass of a whole batch and before the optimizer's step: the gradients are those
        of all processes, without the loss scale of fp16 (where they may be infinite: such a step is left
        out). Not called in steps that are CUDA graphs. Must not wait for the device.
        """

    def on_step(self, trainer: Trainer) -> None:
        if self._now is not None:
            images = trainer.meter.num_images - self._images
            self._images = trainer.meter.num_images
            self._now.advance(images, trainer.meter.own_loss)

    def on_log(self, trainer: Trainer) -> None:
        loss = trainer.running["CELoss"]
        if self._now is None or not self._now.show_loss(loss):
            _log.info("epoch %d, step %d: loss %.4f", trainer.epoch + 1, trainer.step, loss)

    def on_validation_start(self, trainer: Trainer, batches: int) -> None:
        self._begin(trainer, ", validation", batches)

    def on_validation_step(self, trainer: Trainer, images: int, meter: Meter) -> None:
        if self._now is not None:
            self._now.advance(images, meter.own_loss)

    def on_metrics(self, trainer: Trainer, phase: str, metrics: dict[str, float]) -> None:
        self._end()
        if phase == "train":
            self._train = metrics
            if trainer.val is not None:
                return
        k, train = trainer.topk[0], self._train
        validated = ""
        if phase == "val":
            validated = (
                f"val loss {metrics['CELoss']:.4f}, top-{k} {metrics[f'top{k}_accuracy']:.2f} % "
                f"(best {metrics['best_val']:.2f}); "
            )
        _log.info(
            "epoch %d of %d: train loss %.4f, top-%d %.2f %%; %slr %.4g; %.1f s, %.0f images/s",
            trainer.epoch + 1, trainer.num_epochs, train["CELoss"], k, train[f"top{k}_accuracy"], validated,
            trainer.lr, train["epoch_time"], train["images_per_second"],
        )  # fmt: skip

    def on_end(self, trainer: Trainer) -> None:
        self._end()

    def _begin(self, trainer: Trainer, phase: str, batches: int, done: int = 0, more: int = 0) -> None:
        self._end()
        name = f"epoch {trainer.epoch + 1} of {trainer.num_epochs}{phase}"
        processes = trainer.world.size
        self._now = BatchProgress(name, batches, done, more, processes=processes, clock=self._clock)

    def _end(self) -> None:
        if self._now is not None:
            self._now.close()
            self._now = None


class MetricsFile(Callback):
    """`metrics.jsonl`: one line an epoch and phase."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_metrics(self, trainer: Trainer, phase: str, metrics: dict[str, float]) -> None:
        head = {"epoch": trainer.epoch, "step": trainer.step, "phase": phase, "lr": trainer.lr}
        self.folder.add_metrics({**head, **metrics})


class TensorBoard(Callback):
    """For TensorBoard: scalars, pictures and churn of the wiring, histograms of weights in use, settings.

    The churn of a layer is the part of its edges in use, percent, that was not in use an epoch before.

    Args:
        folder: the run's folder.
        layers: gives the boolean (targets, sources) matrix of the edges in use of every layer that selects,
            and the weights, of the same shape.
        macs: multiply-accumulates of one image, or None where they were not counted.
        pictures: whether the matrices are drawn.
        image_interval: epochs between two pictures, and between two histograms.
        first_step: training steps done before; what an earlier start of the run told of later ones is void.

    Raises:
        UserError: the files cannot be written.
    """

    def __init__(
        self,
        folder: RunFolder,
        layers: Callable[[], Iterable[tuple[Tensor, Tensor]]],
        macs: int | None,
        pictures: bool = True,
        image_interval: int = 10,
        first_step: int = 0,
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second of import that evaluation does not need

        self._folder = folder
        self._writer: Any = SummaryWriter(str(folder.path), purge_step=first_step + 1 if first_step else None)
        self._layers, self._pictures, self._image_interval = layers, pictures, image_interval
        self._macs = macs
        self._before: list[Tensor] = []

    def on_start(self, trainer: Trainer) -> None:
        if self._macs is not None:
            self._add("scalar", "flops/flops", self._macs, trainer.step)
        self._tell_settings()
        layers = self._now()
        self._before = [in_use for in_use, _ in layers]
        if trainer.step == 0:
            self._draw(layers, 0)

    def on_metrics(self, trainer: Trainer, phase: str, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._add("scalar", f"{phase}/{name}", value, trainer.step)
        if phase == "train":
            self._add("scalar", "train/lr", trainer.lr, trainer.step)

    def on_epoch_end(self, trainer: Trainer) -> None:
        done, layers = trainer.epoch + 1, self._now()
        for index, ((in_use, _), before) in enumerate(zip(layers, self._before, strict=True)):
            churn = 100 * int((in_use & ~before).sum()) / max(int(in_use.sum()), 1)
            self._add("scalar", f"wiring/churn_{index}", churn, trainer.step)
        self._before = [in_use for in_use, _ in layers]
        if done % self._image_interval == 0 or done == trainer.num_epochs:
            self._draw(layers, trainer.step)

    def on_end(self, trainer: Trainer) -> None:
        try:
            self._writer.close()
        except OSError as error:
            _log.warning("the last values for TensorBoard could not be written (%s)", error)

    def _now(self) -> list[tuple[Tensor, Tensor]]:
        return list(self._layers())

    def _draw(self, layers: Iterable[tuple[Tensor, Tensor]], step: int) -> None:
        for index, (in_use, weight) in enumerate(layers):
            if self._pictures:
                self._add("image", f"adjacency/non_zero_{index}", in_use.unsqueeze(0).float(), step)
            weights = weight.detach()[in_use]
            if weights.numel():  # TensorBoard has no histogram of nothing
                self._add("histogram", f"weights/in_use_{index}", weights, step)

    def _tell_settings(self) -> None:
        """The page `HPARAMS`: settings of all runs side by side, and their best accuracy."""
        from torch.utils.tensorboard.summary import hparams

        plain = {
            key: value if isinstance(value, (bool, int, float, str)) else str(value)
            for key, value in self._folder.settings.values.items()
            if value is not None
        }
        with self._folder.io_errors_as_user_errors():
            for summary in hparams(plain, {"val/best_val": 0}):  # type: ignore[no-untyped-call]
                self._writer.file_writer.add_summary(summary)

    def _add(self, kind: str, *arguments: Any) -> None:
        with self._folder.io_errors_as_user_errors():
            getattr(self._writer, f"add_{kind}")(*arguments)
