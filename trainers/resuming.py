"""Putting a training back to where a checkpoint left it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from genutil.checkpoint import describe, without_prefix
from genutil.errors import CheckpointError
from genutil.schema import NetworkKeys, TrainingKeys, WiringKeys
from genutil.seeding import restore_rng_state
from trainers.trainer import Trainer

_ORDER_KEYS = ("batch_size", "seed", "data", "data_args")
"""What decides which images a batch holds: it must not change within an epoch."""
_TRAINING_GROUPS = (WiringKeys, NetworkKeys, TrainingKeys)
_log = logging.getLogger(__name__)


def resume(trainer: Trainer, checkpoint: Mapping[str, Any], path: str, config: Mapping[str, Any]) -> None:
    """Restore optimizer, progress and random numbers. The weights are in the model already.

    Args:
        trainer: the training, not yet started.
        checkpoint: a checkpoint's content.
        path: its file, for messages.
        config: the experiment's keys and values; what differs from the checkpoint's is told.

    Raises:
        CheckpointError: the file holds weights alone, its optimizer does not fit, or it was saved within an
            epoch whose batches would now be others.
    """
    if "optimizer" not in checkpoint:
        raise CheckpointError(f"{path}: holds weights alone, so training cannot go on from it; take last.pt")
    info = describe(checkpoint, path)
    progress = checkpoint.get("epoch_progress") or {"batch": 0, "meter": None}
    changed = _changed_keys(checkpoint.get("config") or {}, config)
    moved = [key for key in _ORDER_KEYS if key in changed]
    if progress["batch"] and moved:
        message = f"was saved within an epoch, and {', '.join(moved)} changed since; go on with the old value"
        raise CheckpointError(f"{path}: {message}")
    for key, (before, now) in changed.items():
        _log.warning("%s is %s now; in %s it was %s", key, now, path, before)
    try:
        _restore_optimizer(trainer.optimizer, trainer.model, checkpoint)
        trainer.precision.restore(checkpoint.get("scaler"))
        if "rng" in checkpoint:
            restore_rng_state(checkpoint["rng"])
        trainer.epoch = int(info.epoch if info.epoch is not None else -1) + 1
        trainer.batch, trainer.step = int(progress["batch"]), int(info.step or 0)
        trainer.best_val = info.best_val if info.best_val is not None else trainer.best_val
        if progress["meter"] is not None:
            trainer.meter.restore(progress["meter"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its training state does not fit this experiment ({error})") from error
    due = trainer.epoch * len(trainer.train)
    if not trainer.batch and trainer.step != due:
        _log.warning("an epoch has %d steps now: counted anew, %d are done", len(trainer.train), due)
        trainer.step = due  # the learning rate follows the epochs
    _log.info("going on from %s: epoch %d, step %d", path, trainer.epoch + 1, trainer.step)


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, checkpoint: Mapping[str, Any]
) -> None:
    """Put momentum and the like back; the settings (weight decay, …) stay those of this experiment.

    An optimizer knows parameters by position alone. A published file's positions are those of its own
    network, which the order of its weights tells, so they are matched by name.

    Raises:
        ValueError: number or shapes of the parameters differ.
    """
    saved = checkpoint["optimizer"]
    own = [name for name, _ in model.named_parameters()]
    there = [name for name in without_prefix(checkpoint["model"]) if name in set(own)]
    groups = [
        {**group, **{key: value for key, value in mine.items() if key != "params"}}
        for group, mine in zip(saved["param_groups"], optimizer.param_groups, strict=True)
    ]
    if len(groups) == 1 and len(there) == len(own) == len(groups[0]["params"]):
        number = dict(zip(there, groups[0]["params"], strict=True))
        groups[0]["params"] = [number[name] for name in own]
    optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
    for name, parameter in model.named_parameters():
        momentum = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None and momentum.shape != parameter.shape:
            raise ValueError(f"the momentum of {name} has shape {list(momentum.shape)}")


def _changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    relevant = {key for group in _TRAINING_GROUPS for key in group.model_fields} | set(_ORDER_KEYS)
    return {
        key: (before[key], now[key])
        for key in now
        if key in before and key in relevant and before[key] != now[key]
    }
