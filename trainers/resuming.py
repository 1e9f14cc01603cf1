"""Putting a training back to where a checkpoint left it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from genutil.checkpoint.serialization import describe
from genutil.config.schema import keys_of
from genutil.errors import CheckpointError
from genutil.seeding import restore_rng_state
from trainers.optimizers import optimizer_names
from trainers.trainer import Trainer
from wirings.weight_names import match_names

_ORDER_KEYS = tuple(keys_of("order"))
"""What decides which images a batch holds: it must not change within an epoch."""
_TRAINING_KEYS = tuple(keys_of("result"))
_ODD = (AttributeError, LookupError, OverflowError, TypeError, ValueError, RuntimeError)
"""What Python and torch raise where a file holds other values than a training writes."""
_log = logging.getLogger(__name__)


def resume(
    trainer: Trainer,
    checkpoint: Mapping[str, Any],
    path: str,
    config: Mapping[str, Any],
    order_keys: Collection[str] = _ORDER_KEYS,
    training_keys: Collection[str] = _TRAINING_KEYS,
) -> None:
    """Restore optimizer, progress and random numbers. The weights are in the model already.

    Args:
        trainer: the training, not yet started.
        checkpoint: a checkpoint's content.
        path: its file, for messages.
        config: the experiment's keys and values.
        order_keys: those of them that decide which images a batch holds.
        training_keys: those that decide what is trained, and how; a change of them is told.

    Raises:
        CheckpointError: the file holds weights alone, its optimizer does not fit, or it was saved within an
            epoch whose batches would now be others.
    """
    if "optimizer" not in checkpoint:
        raise CheckpointError(
            f"{path}: holds weights alone, so training cannot be resumed from it; resume the training's last "
            "checkpoint (last.pt, checkpoint.pth.tar), or start a new training at epoch 0 with its weights: "
            "--use_graph FILE in place of --resume FILE (--pretrained-weights FILE for the sparse ResNets)"
        )
    try:
        _put_back(trainer, checkpoint, path, config, order_keys, training_keys)
    except _ODD as error:
        raise CheckpointError(f"{path}: its training state does not fit this experiment ({error})") from error
    _log.info("going on from %s: epoch %d, step %d", path, trainer.epoch + 1, trainer.step)


def _put_back(
    trainer: Trainer,
    checkpoint: Mapping[str, Any],
    path: str,
    config: Mapping[str, Any],
    order_keys: Collection[str],
    training_keys: Collection[str],
) -> None:
    info = describe(checkpoint, path)
    progress = checkpoint.get("epoch_progress") or {"batch": 0, "meter": None}
    before = checkpoint.get("config") or {}
    changed = {
        key: (before[key], config[key])
        for key in [*training_keys, *order_keys]
        if key in before and key in config and before[key] != config[key]
    }
    moved = [key for key in order_keys if key in changed]
    if progress.get("batches", len(trainer.train)) != len(trainer.train):
        moved.append(f"the number of batches ({progress['batches']}, now {len(trainer.train)})")
    if progress["batch"] and moved:
        message = f"was saved within an epoch, and {', '.join(moved)} changed since; go on as before"
        raise CheckpointError(f"{path}: {message}")
    for key, (old, new) in changed.items():
        _log.warning("%s is %s now; in %s it was %s", key, new, path, old)
    _restore_optimizer(trainer.optimizer, trainer.model, checkpoint)
    trainer.precision.restore(checkpoint.get("scaler"))
    if "rng" in checkpoint:
        restore_rng_state(checkpoint["rng"])
    trainer.epoch = int(info.epoch if info.epoch is not None else -1) + 1
    trainer.batch, trainer.step = int(progress["batch"]), int(info.step or 0)
    trainer.best_val = info.best_val if info.best_val is not None else trainer.best_val
    if min(trainer.epoch, trainer.batch, trainer.step) < 0 or trainer.batch > len(trainer.train):
        raise ValueError(f"epoch {trainer.epoch}, batch {trainer.batch}, step {trainer.step}")
    if progress["meter"] is not None:
        trainer.meter.restore(progress["meter"])
    due = trainer.epoch * len(trainer.train)
    if not trainer.batch and trainer.step != due:
        _log.warning("an epoch has %d steps now: counted anew, %d are done", len(trainer.train), due)
        trainer.step = due  # the learning rate follows the epochs


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, checkpoint: Mapping[str, Any]
) -> None:
    """Put momentum and the like back; groups and settings (weight decay, …) stay those of this experiment.

    An optimizer knows parameters by position alone; they are matched by name.

    Raises:
        ValueError: names, number or shapes of the parameters differ.
    """
    saved, own = checkpoint["optimizer"], optimizer_names(optimizer, model)
    names = _names_by_position(checkpoint, own, model)
    places = [place for group in saved["param_groups"] for place in group["params"]]
    if sorted(names) != sorted(own) or len(places) != len(names):
        raise ValueError(f"its optimizer has {len(places)} parameters, this one has {len(own)} or others")
    place_of = dict(zip(names, places, strict=True))
    states = {
        number: saved["state"][place_of[name]]
        for number, name in enumerate(own)
        if place_of[name] in saved["state"]
    }
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    for name, parameter in model.named_parameters():
        momentum = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None and momentum.shape != parameter.shape:
            raise ValueError(f"the momentum of {name} has shape {list(momentum.shape)}")


def _names_by_position(checkpoint: Mapping[str, Any], own: Sequence[str], model: nn.Module) -> list[str]:
    """Names of the parameters in the order of a file's optimizer.

    A published file does not tell them. Its positions are those of its own network, which the order of its
    weights tells; where batch norms have a group of their own, that holds what is called `bn`, and is first.
    """
    if "optimizer_names" in checkpoint:
        return list(checkpoint["optimizer_names"])
    if "format" in checkpoint:  # written before names were kept: the order is this network's
        return list(own)
    matched = match_names(checkpoint["model"], model.state_dict())
    there = [name for name in matched.weights if name in set(own)]
    if len(checkpoint["optimizer"]["param_groups"]) > 1:
        return sorted(there, key=lambda name: "bn" not in name)
    return there
