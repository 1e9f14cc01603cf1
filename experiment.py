"""Puts an experiment together from its parts and runs it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from genutil.checkpoint import apply_weights
from genutil.components import Parts, locate
from genutil.config import Config
from genutil.devices import available_cpus, choose_device
from genutil.distributed import World
from genutil.errors import ConfigError, UserError
from genutil.place import Place, check_batch_size, find_place
from genutil.reporting import RunFolder, run_settings
from genutil.run_files import RunFiles, Start, find_start
from genutil.seeding import seed_everything
from genutil.session import run_in_world
from genutil.signals import StopRequest
from models import build_model
from models.compiling import compile_network, failures_explained
from models.fast_eval import compact, engines_of
from models.fast_eval.export import export
from models.graphs.complexity import wired_layers
from models.profiling import Profile, as_table, profile
from models.transfer import take_over
from models.wiring_state import wiring_layout, wiring_state
from trainers.batches import as_batches, corrupt_images
from trainers.callbacks import Callback, MetricsFile, Progress, TensorBoard
from trainers.evaluation import evaluate_and_time
from trainers.optimizers import find_optimizer
from trainers.precision import Precision
from trainers.recording import WiringRecorder
from trainers.resuming import resume
from trainers.saving import CheckpointSaver
from trainers.schedules import find_schedule
from trainers.sync_bn import synchronise_batch_norms
from trainers.trainer import Trainer

_log = logging.getLogger(__name__)


def run(config: Config) -> dict[str, Any] | None:
    """Train or evaluate one experiment, alone or as one of the processes of a run.

    Returns:
        The content of its `results.json`; None in all processes of a run but the first.

    Raises:
        UserError: something that the user can mend.
        RunError: a process was lost, or the like.
        ToldByAnother: another process of the run tells why it ends.
        Interrupted: a signal ended the training; its state is saved.
    """
    place = find_place()
    device = choose_device(config.gpus, config.processes, place or Place())

    def work(world: World, stop: StopRequest) -> dict[str, Any] | None:
        with failures_explained():
            return _run(config, world, stop)

    return run_in_world(work, place, device, config.timeout, config.deterministic)


def _run(config: Config, world: World, stop: StopRequest) -> dict[str, Any] | None:
    if not (config.evaluate or config.export):
        check_batch_size(config.batch_size, world.size, config.accumulate)
    if world.size > 1:
        _log.info("%d processes on %s", world.size, "GPUs" if world.device.type == "cuda" else "CPUs")
    if world.place.restarts:
        _log.warning("started anew after a failure; that may happen %d more times", world.place.restarts_left)
    seed_everything(config.seed)
    parts = Parts(config)
    model = build_model(config, parts)
    start = world.from_main(
        lambda: find_start(
            _checkpoints(config),
            config.resume,
            world.place,
            required=config.evaluate or config.export is not None,
        )
    )
    if start.content is not None:
        apply_weights(start.content, model, str(start.path))
        if config.overrides.keys() & {"use_graph", "use_init"}:
            _log.warning(
                "use_graph and use_init are not read: wiring and weights are those of %s", start.path
            )
    else:
        take_over(model, config.use_graph, config.use_init)
    if config.export is not None:
        return world.on_main(lambda: _export(parts, model, str(config.export)))
    model.to(world.device)
    if config.compile:
        compile_network(model, world.device)
    if config.evaluate:
        return _evaluate(parts, model, world, stop)
    return _train(parts, model, world, start, stop)


def _export(parts: Parts, model: nn.Module, path: str) -> None:
    config = parts.config
    parts.warn_of_unused()
    shape = (config.in_channels, config.image_size, config.image_size)
    try:
        _log.info("written: %s", export(model, Path(path), shape))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise UserError(f"export: {path} cannot be written: {error.strerror or error}") from error


def _evaluate(parts: Parts, model: nn.Module, world: World, stop: StopRequest) -> dict[str, Any] | None:
    config = parts.config
    cost = _profiled(config, model)
    engine = "plain"
    if config.fast_eval:
        engine = "dgl" if config.use_dgl and wired_layers(model) else config.engine
        try:
            model = compact(model, engine, bf16=config.bf16)
            engine = engines_of(model)
        except ValueError as error:
            raise ConfigError(f"fast_eval: {error}") from error
    data = _data(parts, world)
    parts.warn_of_unused()
    folder = world.on_main(lambda: RunFolder(run_settings(config)))
    precision = Precision(config.amp, world.device)
    metrics = evaluate_and_time(model, as_batches(data.val, world), config.topk, precision, world, stop)
    results = {**metrics, **_observer(model)(), **_counts(cost), "engine": engine}
    results |= corrupt_images(data, world)
    return folder.write_results(results, world.place, str(world.device)) if folder is not None else None


def _train(
    parts: Parts, model: nn.Module, world: World, start: Start, stop: StopRequest
) -> dict[str, Any] | None:
    config = parts.config
    if config.sync_bn:
        model = synchronise_batch_norms(model, world)
    data = _data(parts, world)
    trainer = _trainer(parts, model, data, world, stop)
    parts.warn_of_unused()
    if start.content is not None:
        resume(trainer, start.content, str(start.path), config.model_dump())
    # Only now is it sure that the run begins, so that a refused one moves no earlier run's files.
    files = world.on_main(
        lambda: RunFiles(_checkpoints(config), run_settings(config), world.place, start, trainer.step)
    )
    trainer.callbacks = _callbacks(parts, model, world, files, trainer.step)
    metrics: dict[str, Any] = trainer.fit()
    metrics |= {"best_val": trainer.best_val, "epochs": trainer.epoch, "steps": trainer.step}
    metrics |= _observer(model)()
    results = {**metrics, **_counts(_profiled(config, model)), **corrupt_images(data, world)}
    return files.run.write_results(results, world.place, str(world.device)) if files is not None else None


def _checkpoints(config: Config) -> Path:
    return Path(config.save_dir).expanduser() / str(config.name)


def _data(parts: Parts, world: World) -> Any:
    workers = parts.config.workers
    if world.place.local_size > 1 and workers != 0:
        available = available_cpus()
        wanted = available if workers == "auto" else min(workers, available)
        workers = max(1, wanted // world.place.local_size)
    return parts.make(locate(parts.config.data, "data"), "data_args", device=world.device, workers=workers)


def _callbacks(
    parts: Parts, model: nn.Module, world: World, files: RunFiles | None, step: int
) -> tuple[Callback, ...]:
    config = parts.config
    cost = _profiled(config, model)

    def wirings() -> list[Tensor]:
        return [layer.adjacency() for layer in wired_layers(model)]

    def layers() -> list[tuple[Tensor, Tensor]]:
        return [(layer.adjacency(), layer.rule.weight.flatten(1)) for layer in wired_layers(model)]

    recorders = _recorders(parts, model, files, step) if config.record_wiring else ()
    if files is None:
        return (*recorders, parts.make(CheckpointSaver, folder=None, wirings=wirings, content={}))
    content = {
        "config": config.model_dump(),
        "origin": {**files.run.origin, "device": str(world.device), "processes": world.size},
    }
    macs = None if config.skip_profiling or cost is None else cost.macs
    return (
        Progress(),
        MetricsFile(files.run),
        TensorBoard(files.run, layers, macs, first_step=step),
        *recorders,
        parts.make(CheckpointSaver, folder=files.checkpoints, wirings=wirings, content=content),
    )


def _recorders(parts: Parts, model: nn.Module, files: RunFiles | None, step: int) -> tuple[Callback, ...]:
    layout = wiring_layout(model)
    if not layout:
        if files is not None:
            _log.warning("record_wiring: %s has no wired layer; nothing is recorded", type(model).__name__)
        return ()
    folder = files and files.run
    wiring = functools.partial(wiring_state, model)
    return (parts.make(WiringRecorder, folder=folder, layout=layout, wiring=wiring, first_step=step),)


def _trainer(parts: Parts, model: nn.Module, data: Any, world: World, stop: StopRequest) -> Trainer:
    config, train = parts.config, as_batches(data.train, world)
    trainer: Trainer = parts.make(
        Trainer,
        model=model,
        optimizer=parts.make(find_optimizer(config.optimizer), parameters=model.parameters()),
        schedule=parts.make(find_schedule(config.lr_scheduler), steps_per_epoch=len(train)),
        train=train,
        val=as_batches(data.val, world),
        device=world.device,
        observe=_observer(model),
        world=world,
        stop=stop,
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
