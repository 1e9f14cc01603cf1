"""Puts an experiment together from its parts and runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from genutil.checkpoint import apply_weights, read_checkpoint
from genutil.checkpoint_folder import CheckpointFolder, find_checkpoint
from genutil.components import Parts, locate
from genutil.config import Config
from genutil.devices import choose_device
from genutil.reporting import RunFolder
from genutil.seeding import seed_everything
from models import build_model
from models.graphs.complexity import wired_layers
from models.profiling import Profile, profile
from trainers.batches import as_batches
from trainers.callbacks import Callback, CheckpointSaver, MetricsFile, Progress, TensorBoard
from trainers.evaluation import evaluate
from trainers.optimizers import find_optimizer
from trainers.resuming import resume
from trainers.schedules import find_schedule
from trainers.trainer import Trainer


def run(config: Config) -> dict[str, Any]:
    """Train or evaluate one experiment.

    Returns:
        The content of its `results.json`.

    Raises:
        UserError: something that the user can mend.
        Interrupted: a signal ended the training; its state is saved.
    """
    device = choose_device(config.gpus)
    seed_everything(config.seed)
    parts = Parts(config)
    model = build_model(config, parts)
    path = find_checkpoint(_checkpoints(config), config.resume, required=config.evaluate)
    checkpoint = read_checkpoint(path) if path is not None else None
    if checkpoint is not None:
        apply_weights(checkpoint, model, str(path))
    model.to(device)
    data = parts.make(locate(config.data, "data"), "data_args", device=device)
    if config.evaluate:
        parts.warn_of_unused()
        folder = RunFolder(config)
        metrics: dict[str, Any] = evaluate(model, as_batches(data.val), config.topk, device)
    else:
        folder_of_checkpoints = CheckpointFolder(_checkpoints(config), path)
        folder = RunFolder(config)
        trainer = _trainer(
            parts, model, data, device, _callbacks(config, model, folder, folder_of_checkpoints)
        )
        parts.warn_of_unused()
        if checkpoint is not None:
            resume(trainer, checkpoint, str(path), config.model_dump())
        metrics = trainer.fit()
        metrics |= {"best_val": trainer.best_val, "epochs": trainer.epoch, "steps": trainer.step}
    return folder.write_results({**metrics, **_cost(profile(model, config.image_size))}, str(device))


def _checkpoints(config: Config) -> Path:
    return Path(config.save_dir).expanduser() / str(config.name)


def _callbacks(
    config: Config, model: nn.Module, folder: RunFolder, checkpoints: CheckpointFolder
) -> list[Callback]:
    macs = None if config.skip_profiling else profile(model, config.image_size).macs
    return [
        Progress(),
        MetricsFile(folder),
        TensorBoard(folder, lambda: [layer.adjacency() for layer in wired_layers(model)], macs),
        CheckpointSaver(checkpoints, config.model_dump()),
    ]


def _trainer(
    parts: Parts, model: nn.Module, data: Any, device: torch.device, callbacks: list[Callback]
) -> Trainer:
    config, train = parts.config, as_batches(data.train)
    trainer: Trainer = parts.make(
        Trainer,
        model=model,
        optimizer=parts.make(find_optimizer(config.optimizer), parameters=model.parameters()),
        schedule=parts.make(find_schedule(config.lr_scheduler), steps_per_epoch=len(train)),
        train=train,
        val=as_batches(data.val),
        device=device,
        callbacks=callbacks,
    )
    return trainer


def _cost(cost: Profile) -> dict[str, int]:
    return {"edges": cost.edges, "params": cost.params, "macs": cost.macs}
