"""Records the wiring at chosen steps of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genutil.runs.run_folder import WIRING, RunFolder
from genutil.runs.wiring_record import LayerState, RecordWriter, State
from trainers.callbacks import Callback

if TYPE_CHECKING:
    from trainers.trainer import Trainer


class WiringRecorder(Callback):
    """`wiring/` in the run's folder: edges in use, their weights, live nodes, accuracies.

    Every process of a run has one, since the metrics are those of all of them; the first one writes.

    A state tells `step`, `epoch` (with the part of it that is done), `train_loss` and `train_accuracy` of the
    batches since the state before, and at the end of an epoch `val_loss` and `val_accuracy`; percent.

    Args:
        folder: of the run; None for the processes that do not write.
        layout: see genutil.runs.wiring_record.
        wiring: gives the state of each wired layer by its name.
        record_interval: steps between two states; None: after 1, 2, 4, 8, … steps of the first epoch. One is
            always taken before training and after each epoch.
        first_step: training steps done before; what an earlier start of the run told of later ones is void.
    """

    def __init__(
        self,
        folder: RunFolder | None,
        layout: Sequence[Mapping[str, Any]],
        wiring: Callable[[], Mapping[str, LayerState]],
        record_interval: int | None = None,
        first_step: int = 0,
    ) -> None:
        self.folder, self.wiring, self.interval = folder, wiring, record_interval
        self._sums = (0.0, 0, 0)
        self._val: Mapping[str, float] = {}
        self._writer: RecordWriter | None = None
        if folder is not None:
            with folder.io_errors_as_user_errors():
                self._writer = RecordWriter(folder.path / WIRING, layout, first_step)

    def on_start(self, trainer: Trainer) -> None:
        if trainer.batch:  # within an epoch: what it has counted so far was told before
            self._training(trainer)
        if self._writer is not None and not self._writer.count:
            self._record(trainer, self._epoch(trainer), {})

    def on_step(self, trainer: Trainer) -> None:
        if self.interval is not None:
            due = trainer.step % self.interval == 0
        else:
            due = trainer.epoch == 0 and trainer.step & (trainer.step - 1) == 0
        if due and trainer.batch < len(trainer.train):
            self._record(trainer, self._epoch(trainer), self._training(trainer))

    def on_metrics(self, trainer: Trainer, phase: str, metrics: dict[str, float]) -> None:
        if phase == "val":
            top = metrics[f"top{trainer.topk[0]}_accuracy"]
            self._val = {"val_loss": metrics["CELoss"], "val_accuracy": top}

    def on_epoch_end(self, trainer: Trainer) -> None:
        self._record(trainer, trainer.epoch + 1.0, {**self._training(trainer), **self._val})
        self._sums = (0.0, 0, 0)

    @staticmethod
    def _epoch(trainer: Trainer) -> float:
        return trainer.epoch + trainer.batch / len(trainer.train)

    def _training(self, trainer: Trainer) -> dict[str, float]:
        """Loss and accuracy of the batches since the last state."""
        state = trainer.meter.state()
        sums = float(state["loss"]), int(state["correct"][0]), state["num_images"]
        loss, correct, images = (now - before for now, before in zip(sums, self._sums, strict=True))
        self._sums = sums
        return {"train_loss": loss / images, "train_accuracy": 100 * correct / images} if images else {}

    def _record(self, trainer: Trainer, epoch: float, numbers: Mapping[str, float]) -> None:
        if self._writer is None or self.folder is None:
            return
        layers = self.wiring()
        with self.folder.io_errors_as_user_errors():
            self._writer.append(State({"step": trainer.step, "epoch": epoch, **numbers}, layers))
