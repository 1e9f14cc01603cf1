"""Checkpoints of a training: when they are written, what they hold, and that all processes agree on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genutil.checkpoint.checksum import digest
from genutil.checkpoint.file_names import CheckpointNames
from genutil.errors import NotFiniteError, RunError
from genutil.runs.checkpoint_folder import CheckpointFolder
from genutil.seeding import rng_state
from trainers.callbacks import Callback
from trainers.optimizers import optimizer_names

if TYPE_CHECKING:
    from trainers.trainer import Trainer

_log = logging.getLogger(__name__)


class CheckpointSaver(Callback):
    """One file before training, one after each epoch and on a signal, one for the best, one for every N-th.

    Their names are those of the folder's layout (genutil.checkpoint.file_names): init.pt, last.pt, best.pt,
    epoch_N.pt.
    Every process of a run has a saver, since all of them must agree on what the first one writes.

    Args:
        folder: where to; None for the processes that do not write.
        wirings: gives the edges in use of every wired layer.
        content: kept in each file beside the training's state: what repeats the run.
        checkpoint_interval: a file of epoch N is written for every N that it divides; None: none.
        checkpoint_interval_steps: within an epoch, the last file is written every so many steps; None: never.
        keep_last: how many files of one epoch stay; None: all.
    """

    def __init__(
        self,
        folder: CheckpointFolder | None,
        wirings: Callable[[], Iterable[Tensor]],
        content: Mapping[str, Any],
        checkpoint_interval: int | None = 10,
        checkpoint_interval_steps: int | None = None,
        keep_last: int | None = None,
    ) -> None:
        self.folder, self.wirings, self.content = folder, wirings, dict(content)
        self.interval, self.interval_steps = checkpoint_interval, checkpoint_interval_steps
        self.keep_last = keep_last

    def on_start(self, trainer: Trainer) -> None:
        if trainer.step == 0:
            self._save(trainer, False, lambda layout: [layout.first])

    def on_step(self, trainer: Trainer) -> None:
        if (
            self.interval_steps
            and trainer.step % self.interval_steps == 0
            and trainer.batch < len(trainer.train)
        ):
            trainer.read_meter()
            _check_weights(trainer)
            self._save(trainer, False, lambda layout: [layout.last])

    def on_epoch_end(self, trainer: Trainer) -> None:
        numbered = self.interval is not None and trainer.epoch % self.interval == 0
        self._save(
            trainer,
            True,
            lambda layout: [
                layout.numbered.format(trainer.epoch) if numbered else None,
                layout.best if trainer.improved else None,
                layout.last,
            ],
        )
        if self.folder is not None and self.keep_last is not None:
            self.folder.keep_last(self.keep_last)

    def on_interrupt(self, trainer: Trainer) -> None:
        self._save(trainer, False, lambda layout: [layout.last])
        if self.folder is not None:
            path = self.folder.path / self.folder.layout.last
            _log.info("saved %s; resume with --resume auto", path)
        trainer.world.barrier()  # a process that is gone would make the launcher end the one that writes

    def on_end(self, trainer: Trainer) -> None:
        if self.folder is not None:
            self.folder.close()

    def _save(
        self, trainer: Trainer, finished: bool, names: Callable[[CheckpointNames], Iterable[str | None]]
    ) -> None:
        """All processes make the state, since they must agree; one writes it, under each of the names."""
        state = self._state(trainer, finished)
        if self.folder is not None:
            for name in names(self.folder.layout):
                if name is not None:
                    self.folder.save(name, state)

    def _state(self, trainer: Trainer, finished: bool) -> dict[str, Any]:
        trainer.world.broadcast_buffers(trainer.model)
        state = {
            "model": trainer.model.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "optimizer_names": optimizer_names(trainer.optimizer, trainer.model),
            "last_epoch": trainer.epoch if finished else trainer.epoch - 1,
            "best_val": trainer.best_val,
            "iter": trainer.step,
            "scheduler": {"step": trainer.step, "lr": trainer.lr},
            "scaler": trainer.precision.state(),
            "rng": rng_state(),
            **self.content,
            "epoch_progress": {
                "batch": 0 if finished else trainer.batch,
                "batches": len(trainer.train),
                "meter": None if finished else trainer.meter.state(),
            },
        }
        if trainer.world.size > 1:
            self._check_agreement(trainer, state)
        return state

    def _check_agreement(self, trainer: Trainer, state: Mapping[str, Any]) -> None:
        """Weights, wirings, momenta, random numbers: the same on all processes, to the bit.

        Raises:
            RunError: they are not.
        """
        state = {**state, "wirings": [edges.bool() for edges in self.wirings()]}
        parts = ("model", "wirings", "optimizer", "rng", "epoch_progress", "best_val")
        own = {part: digest(state[part]) for part in parts}
        found = trainer.world.gather(own)
        for rank, other in enumerate(found):
            differing = [part for part in parts if other[part] != found[0][part]]
            if differing:
                raise RunError(
                    f"process {rank} differs from process 0 in {', '.join(differing)} at step "
                    f"{trainer.step}; nothing was saved. Something gave it other numbers: a faulty device, "
                    "other versions, another kind of processor, or a part of your own that is not the same "
                    "in all processes"
                )


def _check_weights(trainer: Trainer) -> None:
    """The loss tells of a step's damage only in the next one."""
    for name, weight in trainer.model.named_parameters():
        if not torch.isfinite(weight).all():
            raise NotFiniteError(f"{name} is not finite")
