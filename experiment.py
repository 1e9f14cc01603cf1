"""Puts an experiment together from its parts and runs it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genutil.checkpoint import apply_weights
from genutil.config import Config
from genutil.config.components import ComponentBuilder, locate, named_parts, takes
from genutil.devices import available_cpus, choose_device
from genutil.distributed.rank_info import RankInfo, check_batch_size, rank_info_from_env
from genutil.distributed.session import run_distributed
from genutil.distributed.world import World
from genutil.errors import ConfigError, UserError
from genutil.memory import allocations_explained, require_memory_for_training, sizes_checked
from genutil.runs.checkpoint_folder import RunOutputs
from genutil.runs.past_runs import checkpoints_of
from genutil.runs.resume_point import ResumePoint, check_resume_point, find_resume_point
from genutil.runs.run_folder import RunFolder, run_settings
from genutil.seeding import seed_everything
from genutil.signals import StopRequest
from genutil.threads import choose_threads, threads_in_use, work_of_step
from genutil.user_code import errors_in, is_foreign
from models import build_model
from models.compiling import compile_errors_as_config_errors, compile_network
from models.logits import check_logits
from models.transfer import load_wiring_and_weights
from models.wiring_state import wiring_layout, wiring_state
from trainers.batches import Batches, as_batches, corrupt_images
from trainers.callbacks import Callback, MetricsFile, Progress, TensorBoard, WiringUpdate, reads_gradients
from trainers.captured import CapturedStep, obstacle_to_capture
from trainers.checks import CheckedBatches, Expected, expected_by, label_errors_explained
from trainers.evaluation import evaluate_and_time
from trainers.foreign_parts import (
    check_data,
    check_parameters,
    checked_callback,
    checked_optimizer,
    checked_schedule,
)
from trainers.optimizers import find_optimizer
from trainers.precision import Precision
from trainers.recording import WiringRecorder
from trainers.resuming import resume
from trainers.saving import CheckpointSaver
from trainers.schedules import find_schedule
from trainers.sync_bn import synchronise_batch_norms
from trainers.trainer import Trainer
from wirings.compacting import compact, engines_of
from wirings.errors import MissingPackageError
from wirings.exporting import export
from wirings.profiling import Profile, as_table, profile
from wirings.structure import image_size, observations, waits_for_device, wired_layers
from wirings.wiring import Wiring

_log = logging.getLogger(__name__)


def run(config: Config) -> dict[str, Any] | None:
    """Train or evaluate one experiment, alone or as one of the processes of a run.

    Returns:
        The content of its `results.json`; None in all processes of a run but the first, and where nothing is
        left to train.

    Raises:
        UserError: something that the user can fix.
        RunError: a process was lost, or the like.
        ReportedByOtherRank: another process reports why the run ends.
        Interrupted: a signal ended the training; its state is saved.
    """
    rank_info = rank_info_from_env()
    device = choose_device(config.gpus, config.processes, rank_info or RankInfo())

    def work(world: World, stop: StopRequest) -> dict[str, Any] | None:
        with errors_in(named_parts(config)), compile_errors_as_config_errors():
            return _run(config, world, stop)

    return run_distributed(work, rank_info, device, config.timeout, config.deterministic)


def _run(config: Config, world: World, stop: StopRequest) -> dict[str, Any] | None:
    if not (config.evaluate or config.export):
        check_batch_size(config.batch_size, world.size, config.accumulate)
    if world.size > 1:
        _log.info("%d processes on %s", world.size, "GPUs" if world.device.type == "cuda" else "CPUs")
    if world.rank_info.restarts:
        _log.warning("restarted after a failure; %d restarts left", world.rank_info.restarts_left)
    seed_everything(config.seed)
    parts = ComponentBuilder(config)
    model = build_model(config, parts)
    start = world.broadcast_from_main(lambda: _find_resume_point(parts, world.rank_info))
    if start.finished is not None:
        _log.info("%s", start.finished)
        return None
    if start.content is not None:
        apply_weights(start.content, model, str(start.path))
        if config.overrides.keys() & {"use_graph", "use_init"}:
            _log.warning(
                "use_graph and use_init are not read: wiring and weights are those of %s", start.path
            )
    else:
        load_wiring_and_weights(model, config.use_graph, config.use_init)
    if config.export is not None:
        return world.run_on_main(lambda: _export(parts, model, str(config.export)))
    with allocations_explained(lambda: f"model: {config.model} on {world.device}"):
        model.to(world.device)
    if is_foreign(config.model):
        shape = (config.in_channels, config.image_size, config.image_size)
        check_logits(model, config.model, shape, config.output_size)
    if config.compile:
        compile_network(model, world.device)
    with threads_in_use(_threads(config, model, world)):
        if config.evaluate:
            return _evaluate(parts, model, world, start, stop)
        return _train(parts, model, world, start, stop)


def _threads(config: Config, model: nn.Module, world: World) -> int | None:
    """CPU threads of this process; None: torch's own number, which is best for the engines of fast_eval."""
    if config.threads == "auto" and (config.fast_eval or world.device.type != "cpu"):
        return None
    images = (config.test_batch_size or config.batch_size) if config.evaluate else config.batch_size
    share = max(images // world.size // (1 if config.evaluate else config.accumulate), 1)
    return choose_threads(config.threads, work_of_step(model, share, config.image_size))


def _find_resume_point(parts: ComponentBuilder, rank_info: RankInfo) -> ResumePoint:
    """The checkpoint that the run is resumed from, if it is one of this experiment or was named."""
    config = parts.config
    trains = not config.evaluate and config.export is None
    start = find_resume_point(checkpoints_of(config), config.resume, rank_info, required=not trains)
    return check_resume_point(config, start, trains and start.content is not None and _reads_length(parts))


def _reads_length(parts: ComponentBuilder) -> bool:
    """Whether training depends on `num_epochs` before its end. The network is built already."""
    config = parts.config
    others = (
        locate(config.data, "data"),
        find_optimizer(config.optimizer),
        find_schedule(config.lr_scheduler),
    )
    return "num_epochs" in parts.used or any(takes(part, "num_epochs") for part in others)


def _export(parts: ComponentBuilder, model: nn.Module, path: str) -> None:
    config = parts.config
    parts.warn_of_unused()
    shape = (config.in_channels, config.image_size, config.image_size)
    try:
        _log.info("written: %s", export(model, Path(path), shape))
    except MissingPackageError:
        raise
    except ValueError as error:
        raise ConfigError(f"export: {error}") from error
    except OSError as error:
        raise UserError(f"export: {path} cannot be written: {error.strerror or error}") from error


def _evaluate(
    parts: ComponentBuilder, model: nn.Module, world: World, start: ResumePoint, stop: StopRequest
) -> dict[str, Any] | None:
    config, expected = parts.config, _expected(parts, model)
    cost = _profiled(config, model)
    engine = "plain"
    if config.fast_eval:
        engine = "dgl" if config.use_dgl and wired_layers(model) else config.engine
        try:
            model = compact(model, engine, bf16=config.bf16)
            engine = engines_of(model)
        except MissingPackageError:
            raise
        except ValueError as error:
            raise ConfigError(f"fast_eval: {error}") from error
    data = _data(parts, world, "val")
    batches = _batches(data.val, "val", world, expected, before=True)
    parts.warn_of_unused()
    folder = world.run_on_main(lambda: RunFolder(run_settings(config)))
    precision = Precision(config.amp, world.device)
    size = config.test_batch_size or config.batch_size
    evaluating = allocations_explained(lambda: f"test_batch_size: evaluating {_batch_of(config, size)}")
    with label_errors_explained(expected), evaluating:
        metrics = evaluate_and_time(model, batches, config.topk, precision, world, stop)
    results = {**metrics, **observations(model), **_counts(cost), "engine": engine}
    results["threads"] = torch.get_num_threads()
    results |= {**corrupt_images(data, world), "started_from": start.record}
    return folder.write_results(results, world.rank_info, str(world.device)) if folder is not None else None


def _batch_of(config: Config, size: int | None = None) -> str:
    """What the messages call a batch that needs too much memory."""
    return (
        f"a batch of {size or config.batch_size} images of {config.image_size} × {config.image_size} pixels"
    )


def _train(
    parts: ComponentBuilder, model: nn.Module, world: World, start: ResumePoint, stop: StopRequest
) -> dict[str, Any] | None:
    config = parts.config
    if config.sync_bn:
        model = synchronise_batch_norms(model, world)
    expected = _expected(parts, model)
    data = _data(parts, world, "train", "val")
    trainer = _trainer(parts, model, data, expected, world, stop)
    own = _callback_classes(config)
    parts.warn_of_unused()
    if start.content is not None:
        resume(trainer, start.content, str(start.path), config.model_dump())
    # Only now is it sure that the run begins, so that a refused one moves no earlier run's files.
    files = world.run_on_main(
        lambda: RunOutputs(checkpoints_of(config), run_settings(config), world.rank_info, start, trainer.step)
    )
    trainer.callbacks = (
        *_callbacks(parts, model, world, files, start, trainer.step),
        *_own_callbacks(parts, own, files),
    )
    training = allocations_explained(lambda: f"batch_size: training by {_batch_of(config)}")
    with label_errors_explained(expected), training:
        metrics: dict[str, Any] = trainer.fit()
    metrics |= {"best_val": trainer.best_val, "epochs": trainer.epoch, "steps": trainer.step}
    metrics["threads"] = torch.get_num_threads()
    metrics |= {**observations(model), "started_from": start.record}
    results = {**metrics, **_counts(_profiled(config, model)), **corrupt_images(data, world)}
    return files.run.write_results(results, world.rank_info, str(world.device)) if files is not None else None


def _data(parts: ComponentBuilder, world: World, *names: str) -> Any:
    """The data set, with batches in each of the attributes `names`."""
    workers = parts.config.workers
    if world.rank_info.local_size > 1 and workers != 0:
        available = available_cpus()
        wanted = available if workers == "auto" else min(workers, available)
        workers = max(1, wanted // world.rank_info.local_size)
    path = parts.config.data
    kind = locate(path, "data")
    with sizes_checked(f"data: {path}", parts.sizes_used):
        data = parts.build_named("data", kind, "data_args", device=world.device, workers=workers)
    check_data(data, path, names)
    return data


def _expected(parts: ComponentBuilder, model: nn.Module) -> Expected:
    """What the network, built but with no other part yet, expects of the data class."""
    config = parts.config
    keys: dict[str, int] = {
        key: getattr(config, key) for key in ("in_channels", "output_size") if key in parts.used
    }
    return expected_by(model, f"data: {config.data}", keys)


def _batches(source: Any, part: str, world: World, expected: Expected, before: bool = False) -> Batches:
    """This process's share of a part of the data set, checked; with `before`, its first batch at once."""

    def checked(batches: Batches) -> Batches:
        made = CheckedBatches(batches, expected, part)
        if before:
            made.check_first()
        return made

    return as_batches(source, world, checked)


def _callbacks(
    parts: ComponentBuilder,
    model: nn.Module,
    world: World,
    files: RunOutputs | None,
    start: ResumePoint,
    step: int,
) -> tuple[Callback, ...]:
    config = parts.config
    cost = _profiled(config, model)

    wiring = Wiring(model)

    def wirings() -> list[Tensor]:
        return list(wiring.adjacency().values())

    def layers() -> list[tuple[Tensor, Tensor]]:
        weights = [rule.weight for rule in wiring.rules.values()]
        return [(used.flatten(1), weight.flatten(1)) for used, weight in zip(wirings(), weights, strict=True)]

    recorders: tuple[Callback, ...] = (WiringUpdate(wiring),) if wiring.reads_gradients else ()
    if config.record_wiring:
        recorders += _recorders(parts, model, files, step)
    if files is None:
        return (*recorders, parts.build(CheckpointSaver, folder=None, wirings=wirings, content={}))
    content = {
        "config": config.model_dump(),
        "origin": {**files.run.origin, "device": str(world.device), "processes": world.size},
        "started_from": start.record,
    }
    macs = None if config.skip_profiling or cost is None else cost.macs
    return (
        Progress(),
        MetricsFile(files.run),
        TensorBoard(files.run, layers, macs, first_step=step),
        *recorders,
        parts.build(CheckpointSaver, folder=files.checkpoints, wirings=wirings, content=content),
    )


def _callback_classes(config: Config) -> dict[str, type[Callback]]:
    """What the experiment's `callbacks` names, by its path."""
    return {path: checked_callback(locate(path, "callbacks"), path) for path in config.callbacks}


def _own_callbacks(
    parts: ComponentBuilder, kinds: Mapping[str, type[Callback]], files: RunOutputs | None
) -> list[Callback]:
    """Those that the experiment names. Of several processes, most are wanted in the first alone."""
    folder, settings = (None if files is None else files.run.path), parts.config.model_dump()
    return [
        parts.build_named("callbacks", kind, path=path, folder=folder, settings=settings)
        for path, kind in kinds.items()
        if files is not None or kind.on_all_processes
    ]


def _recorders(
    parts: ComponentBuilder, model: nn.Module, files: RunOutputs | None, step: int
) -> tuple[Callback, ...]:
    layout = wiring_layout(model)
    if not layout:
        if files is not None:
            _log.warning("record_wiring: %s has no wired layer; nothing is recorded", type(model).__name__)
        return ()
    folder = files and files.run
    wiring = functools.partial(wiring_state, model)
    return (parts.build(WiringRecorder, folder=folder, layout=layout, wiring=wiring, first_step=step),)


def _trainer(
    parts: ComponentBuilder, model: nn.Module, data: Any, expected: Expected, world: World, stop: StopRequest
) -> Trainer:
    config, train = parts.config, _batches(data.train, "train", world, expected)
    check_parameters(model, config.model)
    if world.device.type == "cpu":
        has_momentum = config.optimizer == "sgd" and config.momentum > 0
        require_memory_for_training(model, config.model, has_momentum, world.rank_info.local_size)
    optimizer = parts.build_named(
        "optimizer", find_optimizer(config.optimizer), parameters=model.parameters()
    )
    schedule = parts.build_named(
        "lr_scheduler", find_schedule(config.lr_scheduler), steps_per_epoch=len(train)
    )
    trainer: Trainer = parts.build(
        Trainer,
        model=model,
        optimizer=checked_optimizer(optimizer, config.optimizer),
        schedule=checked_schedule(schedule, config.lr_scheduler),
        train=train,
        val=_batches(data.val, "val", world, expected, before=True),
        device=world.device,
        observe=functools.partial(observations, model),
        world=world,
        stop=stop,
        capture=_capture(config, model, optimizer, world),
    )
    return trainer


def _capture(
    config: Config, model: nn.Module, optimizer: torch.optim.Optimizer, world: World
) -> type[CapturedStep] | None:
    """What makes steps CUDA graphs, where that was asked for and is possible."""
    if not config.cuda_graph:
        return None
    obstacle = obstacle_to_capture(optimizer, world.device, config.amp, world.size)
    if waits_for_device(model):
        obstacle = (
            obstacle or "the forward pass waits for the device; for a graph in time, set ode_solver: rk4"
        )
    classes = _callback_classes(config).values()
    if Wiring(model).reads_gradients or any(map(reads_gradients, classes)):
        obstacle = obstacle or "an edge rule or a callback acts between the backward pass and the update"
    if obstacle is not None:
        _log.warning("cuda_graph has no effect: %s", obstacle)
        return None
    return CapturedStep


def _profiled(config: Config, model: nn.Module) -> Profile | None:
    """The cost of the network as it is now, shown in every evaluation. None if it cannot be counted."""
    try:
        cost = profile(model, image_size(model) or config.image_size, config.in_channels)
    except ValueError as error:
        _log.warning("%s", error)
        return None
    if config.evaluate or not config.skip_profiling:
        _log.info("%s", as_table(cost))
    return cost


def _counts(cost: Profile | None) -> dict[str, int]:
    if cost is None:
        return {}
    counts = {
        "edges": cost.edges,
        "effective_edges": cost.effective_edges,
        "live_nodes": cost.live_nodes,
        "params": cost.params,
        "macs": cost.macs,
    }
    return {name: count for name, count in counts.items() if count is not None}
