"""Callbacks of every training: progress, metrics file, TensorBoard, updates of the wiring."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from genutil.runs.run_folder import RunFolder
from trainers.callback_base import Callback as Callback
from trainers.callback_base import Training
from trainers.metrics import Meter
from trainers.progress import BatchProgress, Clock
from wirings.wiring import Wiring

_log = logging.getLogger(__name__)


class WiringUpdate(Callback):
    """Calls the edge rules of a network, which may act on the gradients of each step.

    Args:
        wiring: of the network.
    """

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring

    def before_optimizer_step(self, trainer: Training) -> None:
        self._wiring.after_backward(trainer.optimizer, trainer.step, trainer.total_steps)


class Progress(Callback):
    """A bar on a terminal. Elsewhere a line each logging interval, each 30 seconds and each epoch.

    Args:
        clock: see BatchProgress.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._current: BatchProgress | None = None
        self._images = 0
        self._train: dict[str, float] = {}

    def on_epoch_start(self, trainer: Training) -> None:
        batches = len(trainer.train)
        batches_after = batches * (trainer.num_epochs - trainer.epoch - 1)
        self._begin(trainer, "", batches, trainer.batch, batches_after)
        self._images = trainer.meter.num_images

    def on_step(self, trainer: Training) -> None:
        if self._current is not None:
            images = trainer.meter.num_images - self._images
            self._images = trainer.meter.num_images
            self._current.advance(images, trainer.meter.own_loss)

    def on_log(self, trainer: Training) -> None:
        loss = trainer.train_metrics["CELoss"]
        if self._current is None or not self._current.show_loss(loss):
            _log.info("epoch %d, step %d: loss %.4f", trainer.epoch + 1, trainer.step, loss)

    def on_validation_start(self, trainer: Training, batches: int) -> None:
        self._begin(trainer, ", validation", batches)

    def on_validation_step(self, trainer: Training, images: int, meter: Meter) -> None:
        if self._current is not None:
            self._current.advance(images, meter.own_loss)

    def on_metrics(self, trainer: Training, phase: str, metrics: dict[str, float]) -> None:
        self._end()
        if phase == "train":
            self._train = metrics
            if trainer.will_validate:
                return
        k, train = trainer.topk[0], self._train
        validation = ""
        if phase == "val":
            validation = (
                f"val loss {metrics['CELoss']:.4f}, top-{k} {metrics[f'top{k}_accuracy']:.2f} % "
                f"(best {metrics['best_val']:.2f}); "
            )
        _log.info(
            "epoch %d of %d: train loss %.4f, top-%d %.2f %%; %slr %.4g; %.1f s, %.0f images/s",
            trainer.epoch + 1, trainer.num_epochs, train["CELoss"], k, train[f"top{k}_accuracy"], validation,
            trainer.lr, train["epoch_time"], train["images_per_second"],
        )  # fmt: skip

    def on_end(self, trainer: Training) -> None:
        self._end()

    def _begin(
        self, trainer: Training, phase: str, batches: int, done: int = 0, batches_after: int = 0
    ) -> None:
        self._end()
        name = f"epoch {trainer.epoch + 1} of {trainer.num_epochs}{phase}"
        processes = trainer.world.size
        self._current = BatchProgress(
            name, batches, done, batches_after, processes=processes, clock=self._clock
        )

    def _end(self) -> None:
        if self._current is not None:
            self._current.close()
            self._current = None


class MetricsFile(Callback):
    """`metrics.jsonl`: one line per epoch and phase."""

    def __init__(self, run_folder: RunFolder) -> None:
        self.run_folder = run_folder

    def on_metrics(self, trainer: Training, phase: str, metrics: dict[str, float]) -> None:
        head = {"epoch": trainer.epoch, "step": trainer.step, "phase": phase, "lr": trainer.lr}
        self.run_folder.add_metrics({**head, **metrics})


class TensorBoard(Callback):
    """Scalars and settings for TensorBoard.

    Args:
        run_folder: the folder of the run.
        macs: multiply-accumulates of one image; None: not counted.
        first_step: training steps done before; later values of an earlier start of the run are hidden.

    Raises:
        UserError: the files cannot be written.
    """

    def __init__(self, run_folder: RunFolder, macs: int | None = None, first_step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second of import that evaluation does not need

        self._run_folder, self._macs = run_folder, macs
        self._writer: Any = SummaryWriter(
            str(run_folder.path), purge_step=first_step + 1 if first_step else None
        )

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        with self._run_folder.io_errors_as_user_errors():
            self._writer.add_scalar(tag, value, step)

    def add_matrix(self, tag: str, matrix: Tensor, step: int) -> None:
        """Add a matrix as a grey image, 0 in black."""
        with self._run_folder.io_errors_as_user_errors():
            self._writer.add_image(tag, matrix.unsqueeze(0).float(), step)

    def add_histogram(self, tag: str, values: Tensor, step: int) -> None:
        if values.numel():  # TensorBoard refuses an empty histogram
            with self._run_folder.io_errors_as_user_errors():
                self._writer.add_histogram(tag, values, step)

    def on_start(self, trainer: Training) -> None:
        if self._macs is not None:
            self.add_scalar("flops/flops", self._macs, trainer.step)
        self._add_settings()

    def on_metrics(self, trainer: Training, phase: str, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.add_scalar(f"{phase}/{name}", value, trainer.step)
        if phase == "train":
            self.add_scalar("train/lr", trainer.lr, trainer.step)

    def on_end(self, trainer: Training) -> None:
        try:
            self._writer.close()
        except OSError as error:
            _log.warning("the last values for TensorBoard could not be written (%s)", error)

    def _add_settings(self) -> None:
        """The page `HPARAMS`: settings of all runs side by side, with their best accuracies."""
        from torch.utils.tensorboard.summary import hparams

        values = {
            key: value if isinstance(value, (bool, int, float, str)) else str(value)
            for key, value in self._run_folder.settings.values.items()
            if value is not None
        }
        with self._run_folder.io_errors_as_user_errors():
            for summary in hparams(values, {"val/best_val": 0}):  # type: ignore[no-untyped-call]
                self._writer.file_writer.add_summary(summary)


class WiringSummaries(Callback):
    """Churn of the wiring for TensorBoard, after each epoch; `draw` adds pictures and histograms.

    Args:
        board: where the summaries go.
        churn: returns for each wired layer the percentage of its edges in use that were not in use an epoch
            before.
        layers: returns for each wired layer the boolean (targets, sources) matrix of its edges in use, and
            its weights, of the same shape.
        pictures: whether `draw` adds the matrices as pictures.
    """

    def __init__(
        self,
        board: TensorBoard,
        churn: Callable[[], Iterable[float]],
        layers: Callable[[], Iterable[tuple[Tensor, Tensor]]],
        pictures: bool = True,
    ) -> None:
        self._board, self._churn, self._layers, self._pictures = board, churn, layers, pictures

    def on_start(self, trainer: Training) -> None:
        if trainer.step == 0:
            self.draw(trainer)

    def on_epoch_end(self, trainer: Training) -> None:
        for index, churn in enumerate(self._churn()):
            self._board.add_scalar(f"wiring/churn_{index}", churn, trainer.step)

    @torch.no_grad()
    def draw(self, trainer: Training) -> None:
        """Add a picture of each layer's edges and a histogram of its weights in use."""
        for index, (mask, weight) in enumerate(self._layers()):
            if self._pictures:
                self._board.add_matrix(f"adjacency/non_zero_{index}", mask, trainer.step)
            self._board.add_histogram(f"weights/in_use_{index}", weight[mask], trainer.step)
