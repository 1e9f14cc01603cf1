"""Runs an experiment: training, evaluation or export, resumed where it can be."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from construction import (
    build_batches,
    build_callbacks,
    build_captured_step,
    build_data,
    build_optimizer_and_schedule,
    build_user_callbacks,
    callback_classes,
    check_shards,
    find_batch_spec,
)
from genutil.checkpoint.file_names import CheckpointFormat, format_named
from genutil.config import Config
from genutil.config.components import ComponentBuilder, locate, named_parts, takes
from genutil.devices import choose_device
from genutil.distributed.rank_info import RankInfo, check_batch_size, rank_info_from_env
from genutil.distributed.session import run_distributed
from genutil.distributed.world import World
from genutil.exceptions import ConfigError, UserError
from genutil.memory import allocations_explained
from genutil.runs.checkpoint_folder import RunOutputs
from genutil.runs.past_runs import checkpoints_of
from genutil.runs.resume_point import (
    ResumePoint,
    check_initial_weights,
    check_resume_point,
    find_resume_point,
)
from genutil.runs.run_folder import RunFolder, run_settings
from genutil.seeding import seed_everything
from genutil.signals import StopRequest
from genutil.threads import choose_threads, threads_in_use, work_of_step
from genutil.user_code import errors_in, is_foreign
from models import build_model
from models.compiling import compile_errors_as_config_errors, compile_network, use_channels_last
from models.costs import cost_numbers, count_new_edges, profiled, training_cost
from models.logits import check_logits
from models.transfer import apply_adapted_weights, load_wiring_and_weights
from trainers.batch_checks import (
    label_errors_explained,
)
from trainers.batches import corrupt_images
from trainers.callback_base import acts_on_gradients
from trainers.checkpointing import resumable_state
from trainers.criterion import Criterion
from trainers.edge_statistics import EdgeStatistics
from trainers.evaluation import evaluate_and_time
from trainers.optimizers import find_optimizer
from trainers.precision import Precision
from trainers.schedules import find_schedule
from trainers.trainer import Trainer
from wirings.compacting import compact, engines_of
from wirings.errors import MissingPackageError
from wirings.exporting import export
from wirings.layers import WiredLayer
from wirings.structure import observations, wired_layers
from wirings.wiring import Wiring, unwire

_log = logging.getLogger(__name__)


def run(
    config: Config,
    extra_files: Sequence[str] = (),
    convert_settings: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    write_files: Callable[[dict[str, Any]], object] | None = None,
) -> dict[str, Any] | None:
    """Train, evaluate or export an experiment, in one process or as one of several.

    Args:
        config: the experiment.
        extra_files: names of other files of a training in the folder of its checkpoints; a later training
            archives them together with the checkpoints.
        convert_settings: converts the settings in checkpoints of earlier versions.
        write_files: called in the first process with the content of `results.json` before that file is
            written: if it raises an error, `resume: auto` completes the run.

    Returns:
        The content of `results.json`; None on all ranks but the first, after an export, and if nothing is
        left to train.

    Raises:
        UserError: something that the user can fix.
        RunError: a process was lost, or the like.
        ReportedByOtherRank: another process reports why the run ends.
        Interrupted: a signal stopped the run; a training with checkpoints has saved its state.
    """
    rank_info = rank_info_from_env()
    device = choose_device(config.gpus, config.processes, rank_info or RankInfo())
    file_format = dataclasses.replace(
        format_named(config.checkpoint_format),
        extra_files=tuple(extra_files),
        convert_settings=convert_settings,
    )

    def work(world: World, stop: StopRequest) -> dict[str, Any] | None:
        with errors_in(named_parts(config)), compile_errors_as_config_errors():
            return _run(config, file_format, world, stop, write_files)

    return run_distributed(work, rank_info, device, config.timeout, config.deterministic)


def _run(
    config: Config,
    file_format: CheckpointFormat,
    world: World,
    stop: StopRequest,
    write_files: Callable[[dict[str, Any]], object] | None,
) -> dict[str, Any] | None:
    if not (config.evaluate or config.export):
        check_batch_size(config.batch_size, world.size, config.accumulate)
        _check_sync_bn(config, world)
    if world.size > 1:
        _log.info("%d processes on %s", world.size, "GPUs" if world.device.type == "cuda" else "CPUs")
    if world.rank_info.restarts:
        _log.warning("restarted after a failure; %d restarts left", world.rank_info.restarts_left)
    seed_everything(config.seed)
    builder = ComponentBuilder(config)
    model = build_model(config, builder)
    start = world.broadcast_from_main(
        lambda: _find_resume_point(builder, model, file_format, world.rank_info)
    )
    if start.finished is not None:
        _log.info("%s", start.finished)
        return None
    if start.content is not None:
        # A training loads them again, with the rest of its state; a file that does not fit is refused here.
        apply_adapted_weights(start.content, model, str(start.path))
        if config.evaluate or config.export:
            start.content.clear()
        if config.use_graph is not None:
            option = config.option("use_graph")
            _log.info("%s is not read: wiring and weights are those of %s", option, start.path)
    else:
        load_wiring_and_weights(model, config.use_graph, config.use_init)
    if config.export is not None:
        return world.run_on_main(lambda: _export(builder, model, str(config.export)))
    with allocations_explained(lambda: f"model: {config.model} on {world.device}"):
        model.to(world.device)
    if is_foreign(config.model):
        shape = (config.in_channels, config.image_size, config.image_size)
        check_logits(model, config.model, shape, config.output_size)
    if config.channels_last:
        use_channels_last(model)
    if config.compile:
        compile_network(model, world.device)
    with threads_in_use(_threads(config, model, world)):
        if config.evaluate:
            folder, results = _evaluate(builder, model, world, start, stop)
        else:
            folder, results = _train(builder, file_format, model, world, start, stop)
    if folder is None:
        return None
    return folder.write_results(results, world.rank_info, str(world.device), write_files)


def _check_sync_bn(config: Config, world: World) -> None:
    """Refuse `sync_bn` where torch has no synchronized batch norms.

    Raises:
        ConfigError: several processes train on CPUs.
    """
    if config.sync_bn and world.size > 1 and world.device.type != "cuda":
        raise ConfigError(
            "sync_bn: needs GPUs, since torch has no synchronized batch norms for CPUs; leave sync_bn out, "
            "or train on GPUs (--gpus 0 1)"
        )


def _threads(config: Config, model: nn.Module, world: World) -> int | None:
    """CPU threads of this process; None: torch's own number, which is best for the engines of fast_eval."""
    if config.threads == "auto" and (config.fast_eval or world.device.type != "cpu"):
        return None
    images = (config.test_batch_size or config.batch_size) if config.evaluate else config.batch_size
    share = max(images // world.size // (1 if config.evaluate else config.accumulate), 1)
    return choose_threads(config.threads, work_of_step(model, share, config.image_size))


def _find_resume_point(
    builder: ComponentBuilder, model: nn.Module, file_format: CheckpointFormat, rank_info: RankInfo
) -> ResumePoint:
    """The checkpoint of the key `resume` or of an earlier start of the run, checked; or none."""
    config = builder.config
    trains = not config.evaluate and config.export is None
    start = find_resume_point(checkpoints_of(config), config.resume, rank_info, not trains, file_format)
    if start.path is None and trains and config.save_checkpoints:
        check_initial_weights(config, file_format)
    depends = trains and start.content is not None and _depends_on_num_epochs(builder, model)
    return check_resume_point(config, start, depends)


def _depends_on_num_epochs(builder: ComponentBuilder, model: nn.Module) -> bool:
    """Whether training depends on `num_epochs` from the first step.

    Rules and callbacks that act on gradients may read the number of all steps.
    """
    config = builder.config
    callbacks = callback_classes(config).values()
    parts = (
        locate(config.data, "data"),
        find_optimizer(config.optimizer),
        find_schedule(config.lr_scheduler),
        *callbacks,
    )
    return (
        "num_epochs" in builder.used
        or any(takes(part, "num_epochs") for part in parts)
        or Wiring(model).has_after_backward
        or any(map(acts_on_gradients, callbacks))
    )


def _export(builder: ComponentBuilder, model: nn.Module, path: str) -> None:
    config = builder.config
    builder.warn_of_unused()
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
    builder: ComponentBuilder, model: nn.Module, world: World, start: ResumePoint, stop: StopRequest
) -> tuple[RunFolder | None, dict[str, Any]]:
    """Results, and in the first process their folder."""
    config, spec = builder.config, find_batch_spec(builder, model)
    cost = profiled(config, model)
    Wiring(model).check_counts()
    engine = "plain"
    if config.fast_eval:
        engine = config.engine
        if config.use_dgl and wired_layers(model):
            engine = "dgl"
            builder.used.add("use_dgl")
        try:
            model = compact(model, engine, bf16=config.bf16)
            engine = engines_of(model)
        except MissingPackageError:
            raise
        except ValueError as error:
            raise ConfigError(f"fast_eval: {error}") from error
    elif any(isinstance(module, WiredLayer) for module in model.modules()):
        unwire(model)  # so that the weights are selected once
    data = build_data(builder, world, "val")
    batches = build_batches(config, data.val, "val", world, spec, check_now=True)
    builder.warn_of_unused()
    folder = world.run_on_main(lambda: RunFolder(run_settings(config)))
    precision = Precision(config.amp, world.device)
    size = config.test_batch_size or config.batch_size
    evaluating = allocations_explained(lambda: f"test_batch_size: evaluating {_batch_of(config, size)}")
    with label_errors_explained(spec), evaluating:
        metrics = evaluate_and_time(model, batches, config.topk, precision, world, stop)
    results = {**metrics, **observations(model), **cost_numbers(cost), "engine": engine}
    results["threads"] = torch.get_num_threads()
    return folder, {**results, **corrupt_images(data, world), "started_from": start.started_from}


def _batch_of(config: Config, size: int | None = None) -> str:
    """Description of a batch, for messages about memory."""
    return (
        f"a batch of {size or config.batch_size} images of {config.image_size} × {config.image_size} pixels"
    )


def _train(
    builder: ComponentBuilder,
    file_format: CheckpointFormat,
    model: nn.Module,
    world: World,
    start: ResumePoint,
    stop: StopRequest,
) -> tuple[RunFolder | None, dict[str, Any]]:
    """Results, and in the first process their folder."""
    config = builder.config
    if config.sync_bn and world.size > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        builder.used.add("sync_bn")
    spec = find_batch_spec(builder, model)
    data = build_data(builder, world, *(("train", "val") if config.validation else ("train",)))
    train = build_batches(config, data.train, "train", world, spec)
    check_shards(config, model, data, world)
    optimizer, schedule = build_optimizer_and_schedule(builder, model, world, len(train))
    val = build_batches(config, data.val, "val", world, spec, check_now=True) if config.validation else None
    classes = callback_classes(config)
    builder.used |= {"num_epochs", "accumulate"}
    state, first_step = None, config.start_epoch * len(train)
    if start.content is not None:
        state = resumable_state(
            start.content, str(start.path), config.model_dump(), model, optimizer, len(train), config.topk
        )
        first_step = state["iter"]
    checkpoint_dir = checkpoints_of(config) if config.save_checkpoints else None
    outputs = world.run_on_main(
        lambda: RunOutputs(checkpoint_dir, run_settings(config), world.rank_info, start, first_step)
    )

    def open_checkpoints() -> None:
        if outputs is not None:
            outputs.open_checkpoints(file_format)

    # A run that is refused leaves no folder, and moves no checkpoints of earlier runs.
    with nullcontext() if outputs is None else outputs.run.removed_on_error():
        user_callbacks = build_user_callbacks(builder, classes, outputs)
        builder.warn_of_unused()
        world.barrier()  # all processes have their callbacks
        world.run_on_main(open_checkpoints)
    statistics = EdgeStatistics(Wiring(model), functools.partial(observations, model))
    callbacks = build_callbacks(config, file_format, model, world, outputs, start, first_step, statistics)
    callbacks += user_callbacks
    criterion = Criterion(config.label_smoothing, config.mixup, config.seed)
    precision = Precision(config.amp, world.device, config.loss_scale)
    step = build_captured_step(config, model, optimizer, criterion, precision, callbacks, world)
    trainer = Trainer(
        model, optimizer, schedule, train, val, config.num_epochs, config.topk, config.log_interval,
        callbacks=callbacks, criterion=criterion, precision=precision, accumulate=config.accumulate,
        world=world, stop=stop, observe=statistics.observe, captured_step=step,
    )  # fmt: skip
    if start.content is not None and state is not None:
        trainer.load_state_dict(state)
        state.clear()
        start.content.clear()
    else:
        trainer.epoch, trainer.step = config.start_epoch, first_step
    masks = Wiring(model).adjacency()
    training = allocations_explained(lambda: f"batch_size: training by {_batch_of(config)}")
    with label_errors_explained(spec), training:
        results: dict[str, Any] = trainer.fit()
    if config.validation:
        results["best_val"] = trainer.best_val
    else:
        if not results and outputs is not None:  # all epochs were trained by an earlier start
            results = _last_metrics(config, outputs.run)
        results = {f"train_{name}": value for name, value in results.items()}
    results |= {"epochs": trainer.epoch, "steps": trainer.step, "threads": torch.get_num_threads()}
    results |= {**observations(model), "started_from": start.started_from}
    new_edges = count_new_edges(model, masks)
    cost = profiled(config, model, new_edges)
    results |= cost_numbers(cost, new_edges)
    if statistics.is_complete:
        results |= statistics.percentages()
        results |= training_cost(statistics.history, cost, statistics.images)
    results |= corrupt_images(data, world)
    return None if outputs is None else outputs.run, results


def _last_metrics(config: Config, folder: RunFolder) -> dict[str, Any]:
    """Loss and accuracies in the last line of `metrics.jsonl`."""
    names = ("CELoss", *(f"top{k}_accuracy" for k in config.topk))
    return {name: value for line in folder.metrics()[-1:] for name, value in line.items() if name in names}
