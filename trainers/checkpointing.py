"""Checkpoints of a training: when they are written, that processes agree on them, how training is resumed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genutil.checkpoint.file_names import GRAPH_FORMAT, CheckpointFormat
from genutil.checkpoint.serialization import checkpoint_info
from genutil.config.schema import keys_of
from genutil.exceptions import CheckpointError, NotFiniteError, RunError
from genutil.runs.checkpoint_folder import CheckpointFolder
from genutil.seeding import preserve_rng_state, restore_rng_state, rng_state
from trainers.callback_base import Callback, Training, is_due
from trainers.metrics import Meter
from trainers.optimizers import optimizer_names
from trainers.precision import Precision
from wirings.checksum import digest
from wirings.weight_names import match_names

_VALUE_ERRORS = (AttributeError, LookupError, OverflowError, TypeError, ValueError, RuntimeError)
"""Errors that Python and torch raise if values in a file have other types than in `Trainer.state_dict`."""
_AGREED_KEYS = ("model", "wirings", "optimizer", "rng", "epoch_progress", "best_val")
_log = logging.getLogger(__name__)


class CheckpointSaver(Callback):
    """Writes checkpoints: the first, the last, the best, and numbered ones (see CheckpointFormat).

    Every process of a run has a saver, since all of them must agree on the state; the first one writes it.

    Args:
        checkpoint_folder: None in the processes that do not write.
        wirings: returns the edges in use of every wired layer.
        metadata: settings, versions and machine of the run, which each file also contains.
        check: called before each writing; an error that it raises prevents it.
        checkpoint_interval: epochs between two numbered files, see `is_due`; None: no such files.
        keep_last: how many files of one epoch are kept; None: all.
        file_format: names and layout of the files.
    """

    def __init__(
        self,
        checkpoint_folder: CheckpointFolder | None,
        wirings: Callable[[], Iterable[Tensor]],
        metadata: Mapping[str, Any],
        check: Callable[[], object] | None = None,
        checkpoint_interval: int | None = 10,
        keep_last: int | None = None,
        file_format: CheckpointFormat = GRAPH_FORMAT,
    ) -> None:
        self.checkpoint_folder, self.wirings, self.metadata = checkpoint_folder, wirings, dict(metadata)
        self.file_format, self.check = file_format, check
        self.interval, self.keep_last = checkpoint_interval, keep_last

    def on_start(self, trainer: Training) -> None:
        if trainer.step == 0:
            self._save(trainer, self.file_format.first)

    def save_within_epoch(self, trainer: Training) -> None:
        """Write the last file after a step. Must be called in all processes.

        Raises:
            NotFiniteError: the loss or a weight is NaN or infinite.
        """
        trainer.read_meter()
        self._save(trainer, self.file_format.last)

    def on_epoch_end(self, trainer: Training) -> None:
        is_numbered = is_due(trainer.epoch, self.interval)
        self._save(
            trainer,
            self.file_format.numbered.format(trainer.epoch) if is_numbered else None,
            self.file_format.best if trainer.improved else None,
            self.file_format.last,
        )
        if self.checkpoint_folder is not None and self.keep_last is not None:
            self.checkpoint_folder.keep_last(self.keep_last)

    def on_interrupt(self, trainer: Training) -> None:
        self._save(trainer, self.file_format.last)
        if self.checkpoint_folder is not None:
            path = self.checkpoint_folder.path / self.file_format.last
            _log.info("saved %s; resume with --resume auto", path)
        trainer.world.barrier()  # if a process ended now, the launcher would end the one that writes

    def on_end(self, trainer: Training) -> None:
        if self.checkpoint_folder is not None:
            self.checkpoint_folder.close()

    def _save(self, trainer: Training, *names: str | None) -> None:
        """Write the state under each of the names. Called in all processes, since they must agree on it.

        Raises:
            NotFiniteError: a weight is NaN or infinite; the loss shows that only in the next step.
        """
        if trainer.step:
            _check_weights(trainer.model)
        if self.check is not None:
            self.check()
        state = {**trainer.state_dict(), **self.metadata}
        if trainer.world.size > 1:
            self._check_agreement(trainer, state)
        if self.checkpoint_folder is not None:
            for name in filter(None, names):
                self.checkpoint_folder.save(name, state)

    def _check_agreement(self, trainer: Training, state: Mapping[str, Any]) -> None:
        """Compare weights, wirings, momenta and random numbers of all processes, to the bit.

        Raises:
            RunError: they differ.
        """
        state = {**state, "wirings": [edges.bool() for edges in self.wirings()]}
        digests = trainer.world.gather({key: digest(state[key]) for key in _AGREED_KEYS})
        for rank, digests_of_rank in enumerate(digests):
            differing = [key for key in _AGREED_KEYS if digests_of_rank[key] != digests[0][key]]
            if differing:
                raise RunError(
                    f"process {rank} differs from process 0 in {', '.join(differing)} at step "
                    f"{trainer.step}; nothing was saved. Possible causes: a faulty device, other versions, "
                    "another kind of processor, or a component of your own that is not the same in all "
                    "processes"
                )


def _check_weights(model: nn.Module) -> None:
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise NotFiniteError(f"{name} is not finite")


def resumable_state(
    checkpoint: Mapping[str, Any],
    path: str,
    settings: Mapping[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps_per_epoch: int,
    topk: Sequence[int],
) -> dict[str, Any]:
    """The state of a checkpoint for `Trainer.load_state_dict`, checked before the run writes anything.

    Files of earlier versions and published ones lack some keys, and have other names or another order of the
    parameters. Missing values are added, and parameters are matched by name.

    Args:
        checkpoint: result of read_checkpoint.
        path: its file, for messages.
        settings: keys of the experiment with their values.
        model, optimizer, steps_per_epoch, topk: of the training.

    Raises:
        CheckpointError: the file does not fit the training, or was saved within an epoch whose batches would
            be others now.
    """
    try:
        progress: dict[str, Any] = {"batch": 0, "batches": steps_per_epoch, "meter": None}
        progress.update(checkpoint.get("epoch_progress") or {})
        _check_batches(checkpoint, path, settings, progress, steps_per_epoch)
        state = {
            "model": match_names(checkpoint["model"], model.state_dict()).weights,
            "optimizer": {"state": _optimizer_state(optimizer, model, checkpoint)},
            "scheduler": {"lr": _last_lr(checkpoint, optimizer)},
            "scaler": checkpoint.get("scaler"),
            "rng": checkpoint.get("rng", rng_state()),
            "callbacks": dict(checkpoint.get("callbacks") or {}),
            **_counts(checkpoint, path, progress, steps_per_epoch),
        }
        # A trial without effect: wrong values are refused before files are written.
        with preserve_rng_state():
            restore_rng_state(state["rng"])
        Precision("fp16", torch.device("cpu")).load_state_dict(state["scaler"])
        if progress["meter"] is not None:
            Meter(topk, "cpu").load_state_dict(progress["meter"])
    except _VALUE_ERRORS as error:
        raise CheckpointError(f"{path}: its training state does not fit this experiment ({error})") from error
    epoch = state["last_epoch"] + 1  # the next one; messages count epochs from 1
    _log.info("resumed from %s: epoch %d, step %d", path, epoch + 1, state["iter"])
    return state


def _check_batches(
    checkpoint: Mapping[str, Any],
    path: str,
    settings: Mapping[str, Any],
    progress: Mapping[str, Any],
    steps_per_epoch: int,
) -> None:
    """Refuse a checkpoint from within an epoch whose remaining batches would not be the same now.

    Raises:
        CheckpointError: settings that decide the batches have changed, or the number of batches has.
    """
    before = checkpoint.get("config") or {}
    causes = [
        key for key in keys_of("order") if key in before and key in settings and before[key] != settings[key]
    ]
    if progress["batches"] != steps_per_epoch:
        causes.append(f"the number of batches ({progress['batches']}, now {steps_per_epoch})")
    if progress["batch"] and causes:
        raise CheckpointError(
            f"{path}: was saved within an epoch, and {', '.join(causes)} changed since; resume with the "
            "settings that it was saved with"
        )


def _counts(
    checkpoint: Mapping[str, Any], path: str, progress: Mapping[str, Any], steps_per_epoch: int
) -> dict[str, Any]:
    """Epochs, steps and batches done, and the best validation accuracy.

    Raises:
        ValueError: a count is out of range.
    """
    info = checkpoint_info(checkpoint, path)
    last_epoch = -1 if info.epoch is None else info.epoch
    step, batch = info.step or 0, int(progress["batch"])
    if last_epoch < -1 or step < 0 or not 0 <= batch <= steps_per_epoch:
        raise ValueError(f"epoch {last_epoch + 1}, batch {batch}, step {step}")
    due_step = (last_epoch + 1) * steps_per_epoch
    if not batch and step != due_step and info.step is not None:
        _log.warning(
            "an epoch has %d steps now; the step counter is set to %d, as the learning rate follows epochs",
            steps_per_epoch, due_step,
        )  # fmt: skip
    if not batch:
        step = due_step
    return {
        "last_epoch": last_epoch,
        "best_val": -1.0 if info.best_val is None else info.best_val,
        "iter": step,
        "epoch_progress": {"batch": batch, "batches": steps_per_epoch, "meter": progress["meter"]},
    }


def _last_lr(checkpoint: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> float:
    """Learning rate of the last step, which callbacks read before the next one; not in published files."""
    if "format" in checkpoint and "scheduler" in checkpoint:
        return float(checkpoint["scheduler"]["lr"])
    return float(optimizer.param_groups[0]["lr"])


def _optimizer_state(
    optimizer: torch.optim.Optimizer, model: nn.Module, checkpoint: Mapping[str, Any]
) -> dict[int, Any]:
    """Momenta and the like of a checkpoint, by position in this optimizer.

    An optimizer numbers its parameters; here they are matched by name.

    Raises:
        ValueError: names, number or shapes of the parameters differ.
    """
    saved, own_names = checkpoint["optimizer"], optimizer_names(optimizer, model)
    saved_names = _saved_names(checkpoint, own_names, model)
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    different = sorted(set(saved_names) ^ set(own_names))
    if different:
        name = different[0]
        raise ValueError(f"only {'its' if name in saved_names else 'this'} optimizer has {name}")
    if len(numbers) != len(saved_names) or len(saved_names) != len(own_names):
        raise ValueError(f"its optimizer has {len(numbers)} parameters, this one has {len(own_names)}")
    number_of = dict(zip(saved_names, numbers, strict=True))
    states = {
        position: saved["state"][number_of[name]]
        for position, name in enumerate(own_names)
        if number_of[name] in saved["state"]
    }
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    for position, state in states.items():
        name, momentum = own_names[position], state.get("momentum_buffer")
        if momentum is not None and momentum.shape != shapes.get(name, momentum.shape):
            raise ValueError(f"the momentum of {name} has shape {list(momentum.shape)}")
    return states


def _saved_names(checkpoint: Mapping[str, Any], own_names: Sequence[str], model: nn.Module) -> list[str]:
    """Names of the parameters in the order of a file's optimizer.

    A published file has none. Its order is that of its own network, which the order of its weights shows;
    where batch norms have a group of their own, it has the names with `bn` and is the first.
    """
    if "optimizer_names" in checkpoint:
        return list(checkpoint["optimizer_names"])
    if "format" in checkpoint:  # written before names were stored: the order is this network's
        return list(own_names)
    matched = match_names(checkpoint["model"], model.state_dict())
    names = [name for name in matched.weights if name in set(own_names)]
    if len(checkpoint["optimizer"]["param_groups"]) > 1:
        return sorted(names, key=lambda name: "bn" not in name)
    return names
