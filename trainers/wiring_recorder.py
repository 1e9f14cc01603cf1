"""Records the wiring at chosen steps of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from genutil.runs.run_folder import WIRING, RunFolder
from genutil.runs.wiring_record import LayerState, RecordWriter, State
from trainers.callback_base import Callback, Training


class WiringRecorder(Callback):
    """`wiring/` in the run's folder: edges in use, their weights, live nodes, loss and accuracies.

    Every process of a run has a recorder, since the metrics are those of all of them; the first one writes.

    A state has `step`, `epoch` (with the fraction that is done), `train_loss` and `train_accuracy` of the
    batches since the state before, and at the end of an epoch `val_loss` and `val_accuracy`; accuracies in
    percent. One is taken before training and after each epoch; EverySteps or DoublingSteps take others by
    `record`.

    Args:
        run_folder: None in the processes that do not write.
        layout: see genutil.runs.wiring_record.
        wiring: returns the state of each wired layer by its name.
        first_step: training steps done before; later states of an earlier start of the run are removed.

    Raises:
        UserError: the record cannot be written.
    """

    def __init__(
        self,
        run_folder: RunFolder | None,
        layout: Sequence[Mapping[str, Any]],
        wiring: Callable[[], Mapping[str, LayerState]],
        first_step: int = 0,
    ) -> None:
        self.run_folder, self.wiring = run_folder, wiring
        self._sums = (0.0, 0, 0)
        self._val: Mapping[str, float] = {}
        self._writer: RecordWriter | None = None
        if run_folder is not None:
            with run_folder.io_errors_as_user_errors():
                self._writer = RecordWriter(run_folder.path / WIRING, layout, first_step)

    def on_start(self, trainer: Training) -> None:
        if trainer.batch:  # resumed within an epoch: an earlier start has recorded its sums
            self._train_metrics(trainer)
        if self._writer is not None and not self._writer.count:
            self._append(trainer, _epochs_done(trainer), {})

    def record(self, trainer: Training) -> None:
        """Take a state after a step within an epoch. Must be called in all processes."""
        self._append(trainer, _epochs_done(trainer), self._train_metrics(trainer))

    def on_metrics(self, trainer: Training, phase: str, metrics: dict[str, float]) -> None:
        if phase == "val":
            accuracy = metrics[f"top{trainer.topk[0]}_accuracy"]
            self._val = {"val_loss": metrics["CELoss"], "val_accuracy": accuracy}

    def on_epoch_end(self, trainer: Training) -> None:
        self._append(trainer, trainer.epoch + 1.0, {**self._train_metrics(trainer), **self._val})
        self._sums, self._val = (0.0, 0, 0), {}

    def _train_metrics(self, trainer: Training) -> dict[str, float]:
        """Loss and accuracy of the batches since the last state, over all processes."""
        state = trainer.meter.state_dict()
        sums = float(state["loss"]), int(state["correct"][0]), state["num_images"]
        loss, correct, images = (new - old for new, old in zip(sums, self._sums, strict=True))
        self._sums = sums
        return {"train_loss": loss / images, "train_accuracy": 100 * correct / images} if images else {}

    def _append(self, trainer: Training, epoch: float, metrics: Mapping[str, float]) -> None:
        if self._writer is not None and self.run_folder is not None:
            layers = self.wiring()
            with self.run_folder.io_errors_as_user_errors():
                self._writer.append(State({"step": trainer.step, "epoch": epoch, **metrics}, layers))


class DoublingSteps(Callback):
    """Calls a function after 1, 2, 4, 8, … steps of the first epoch, except its last one."""

    def __init__(self, function: Callable[[Training], object]) -> None:
        self.function = function

    def on_step(self, trainer: Training) -> None:
        is_power_of_two = trainer.step & (trainer.step - 1) == 0
        if trainer.epoch == 0 and is_power_of_two and trainer.batch < len(trainer.train):
            self.function(trainer)


def _epochs_done(trainer: Training) -> float:
    return trainer.epoch + trainer.batch / len(trainer.train)
