"""Puts an experiment together from its parts and runs it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from genutil.checkpoint import apply_weights, read_checkpoint
from genutil.checkpoint_folder import CheckpointFolder, find_checkpoint
from genutil.components import Parts, locate
from genutil.config import Config
from genutil.devices import algorithms, choose_device
from genutil.errors import ConfigError
from genutil.reporting import RunFolder
from genutil.seeding import seed_everything
from models import build_model
from models.compiling import compile_network, failures_explained
from models.fast_eval import compact
from models.graphs.complexity import wired_layers
from models.profiling import Profile, as_table, profile
from models.transfer import take_over
from trainers.batches import as_batches
from trainers.callbacks import Callback, CheckpointSaver, MetricsFile, Progress, TensorBoard
from trainers.evaluation import evaluate
from trainers.latency import Timed
from trainers.optimizers import find_optimizer
from trainers.precision import Precision
from trainers.resuming import resume
from trainers.schedules import find_schedule
from trainers.trainer import Trainer

_log = logging.getLogger(__name__)


def run(config: Config) -> dict[str, Any]:
    """Train or evaluate one experiment.

    Returns:
        The content of its `results.json`.

    Raises:
        UserError: something that the user can mend.
        Interrupted: a signal ended the training; its state is saved.
    """
    with algorithms(config.deterministic), failures_explained():
        return _run(config)


def _run(config: Config) -> dict[str, Any]:
    device = choose_device(config.gpus)
    seed_everything(config.seed)
    parts = Parts(config)
    model = build_model(config, parts)
    path = find_checkpoint(_checkpoints(config), config.resume, required=config.evaluate)
    checkpoint = read_checkpoint(path) if path is not None else None
    if checkpoint is not None:
        apply_weights(checkpoint, model, str(path))
        if config.overrides.keys() & {"use_graph", "use_init"}:
            _log.warning("use_graph and use_init are not read: wiring and weights are those of %s", path)
    else:
        take_over(model, config.use_graph, config.use_init)
    model.to(device)
    if config.compile:
        compile_network(model, device)
    if config.evaluate:
        return _evaluate(parts, model, device)
    return _train(parts, model, device, path, checkpoint)


def _evaluate(parts: Parts, model: nn.Module, device: torch.device) -> dict[str, Any]:
    config = parts.config
    cost = _profiled(config, model)
    engine = "plain"
    if config.fast_eval:
        engine = ("dgl" if config.use_dgl else config.engine) if wired_layers(model) else "dense"
        try:
            model = compact(model, engine)
        except ValueError as error:
            raise ConfigError(f"fast_eval: {error}") from error
    timed = Timed(model, device)
    data = _data(parts, device)
    parts.warn_of_unused()
    folder = RunFolder(config)
    batches = as_batches(data.val)
    bar = tqdm(total=len(batches), desc="evaluating", leave=False, disable=None)
    with bar, Precision(config.amp, device).autocast():
        metrics = evaluate(timed, batches, config.topk, device, after_batch=bar.update)
    latency = {"latency_ms": 1000 * timed.seconds_per_image(), "engine": engine}
    metrics |= _observer(model)()
    results = {**metrics, "images": timed.num_images, **_counts(cost), **latency, **_corrupt(data)}
    return folder.write_results(results, str(device))


def _train(
    parts: Parts,
    model: nn.Module,
    device: torch.device,
    path: Path | None,
    checkpoint: Mapping[str, Any] | None,
) -> dict[str, Any]:
    config = parts.config
    data = _data(parts, device)
    trainer = _trainer(parts, model, data, device)
    parts.warn_of_unused()
    if checkpoint is not None:
        resume(trainer, checkpoint, str(path), config.model_dump())
    # Only now is it sure that the run begins, so that a refused one moves no earlier run's files.
    checkpoints = CheckpointFolder(_checkpoints(config), path)
    folder = RunFolder(config)
    trainer.callbacks = _callbacks(config, model, folder, checkpoints, _profiled(config, model))
    metrics: dict[str, Any] = trainer.fit()
    metrics |= {"best_val": trainer.best_val, "epochs": trainer.epoch, "steps": trainer.step}
    metrics |= _observer(model)()
    results = {**metrics, **_counts(_profiled(config, model)), **_corrupt(data)}
    return folder.write_results(results, str(device))


def _checkpoints(config: Config) -> Path:
    return Path(config.save_dir).expanduser() / str(config.name)


def _data(parts: Parts, device: torch.device) -> Any:
    return parts.make(locate(parts.config.data, "data"), "data_args", device=device)


def _callbacks(
    config: Config, model: nn.Module, folder: RunFolder, checkpoints: CheckpointFolder, cost: Profile | None
) -> tuple[Callback, ...]:
    macs = None if config.skip_profiling or cost is None else cost.macs
    return (
        Progress(),
        MetricsFile(folder),
        TensorBoard(folder, lambda: [layer.adjacency() for layer in wired_layers(model)], macs),
        CheckpointSaver(checkpoints, config.model_dump()),
    )


def _trainer(parts: Parts, model: nn.Module, data: Any, device: torch.device) -> Trainer:
    config, train = parts.config, as_batches(data.train)
    trainer: Trainer = parts.make(
        Trainer,
        model=model,
        optimizer=parts.make(find_optimizer(config.optimizer), parameters=model.parameters()),
        schedule=parts.make(find_schedule(config.lr_scheduler), steps_per_epoch=len(train)),
        train=train,
        val=as_batches(data.val),
        device=device,
        observe=_observer(model),
    )
    return trainer


def _observer(model: nn.Module) -> Callable[[], dict[str, float]]:
    """What a network tells of its last forward pass."""
    observe: Callable[[], dict[str, float]] = getattr(model, "observations", dict)
    return observe


def _profiled(config: Config, model: nn.Module) -> Profile | None:
    """The cost of the network as it is now, shown in every evaluation. None if it cannot be counted."""
    try:
        cost = profile(model, getattr(model, "image_size", config.image_size), config.in_channels)
    except ValueError as error:
        _log.warning("%s", error)
        return None
    if config.evaluate or not config.skip_profiling:
        _log.info("%s", as_table(cost))
    return cost


def _counts(cost: Profile | None) -> dict[str, int]:
    if cost is None:
        return {}
    return {
        "edges": cost.edges,
        "effective_edges": cost.effective_edges,
        "live_nodes": cost.live_nodes,
        "params": cost.params,
        "macs": cost.macs,
    }


def _corrupt(data: Any) -> dict[str, int]:
    """How many images could not be read, for data sets that leave such ones out."""
    corrupt = getattr(data, "corrupt", ())
    return {"corrupt_images": len(corrupt)} if corrupt else {}
