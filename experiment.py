"""Runs an experiment: training, evaluation or export, resumed where it can be."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
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
from genutil.checkpoint.file_names import format_named
from genutil.config import Config
from genutil.config.components import ComponentBuilder, locate, named_components, takes
from genutil.devices import choose_device
from genutil.distributed.rank_info import RankInfo, check_batch_size, rank_info_from_env
from genutil.distributed.session import run_distributed
from genutil.distributed.world import World
from genutil.exceptions import ConfigError, UserError
from genutil.memory import memory_errors_explained
from genutil.runs.checkpoint_folder import RunOutputs
from genutil.runs.past_runs import checkpoint_dir_of
from genutil.runs.resume_point import (
    ResumePoint,
    check_initial_weights,
    checked_resume_point,
    find_resume_point,
)
from genutil.runs.run_folder import RunFolder, run_settings
from genutil.seeding import seed_everything
from genutil.signals import StopRequest
from genutil.threads import choose_threads, threads_in_use, work_of_step
from genutil.user_code import errors_in_user_code, is_user_code
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
from trainers.schedules import find_lr_schedule
from trainers.trainer import Trainer
from wirings.compacting import compact, engines_of
from wirings.errors import MissingPackageError
from wirings.exporting import export
from wirings.layers import WiredLayer
from wirings.structure import observations, wired_layers
from wirings.wiring import Wiring, unwire

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CommandFiles:
    """Files that another command than runner.py writes and reads: see imagenet_sparsity_experiments.

    Attributes:
        extra_files: names of other files of a training in the folder of its checkpoints; a later training
            moves them with the checkpoints.
        convert_settings: converts the settings in a checkpoint of an earlier version; None: they stay.
        write_files: called in the first process with all that `results.json` will contain, before it is
            written: if an error is raised, `resume: auto` completes the run.
    """

    extra_files: Sequence[str] = ()
    convert_settings: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    write_files: Callable[[dict[str, Any]], object] | None = None


def run(config: Config, command_files: CommandFiles | None = None) -> dict[str, Any] | None:
    """Train, evaluate or export an experiment, in one process or as one of several.

    Args:
        config: the experiment.
        command_files: files of another command than runner.py.

    Returns:
        What `results.json` contains; None on all ranks but the first, after an export, and if nothing is left
        to train.

    Raises:
        UserError: something that the user can fix.
        RunError: a process was lost, or the like.
        ReportedByOtherRank: another process reports why the run ends.
        Interrupted: a signal stopped the run; a training with checkpoints has saved its state.
    """
    rank_info = rank_info_from_env()
    device = choose_device(config.gpus, config.processes, rank_info or RankInfo())

    def work(world: World, stop: StopRequest) -> dict[str, Any] | None:
        with errors_in_user_code(named_components(config)), compile_errors_as_config_errors():
            return _run(config, command_files or CommandFiles(), world, stop)

    return run_distributed(work, rank_info, device, config.timeout, config.deterministic)


def _run(
    config: Config, command_files: CommandFiles, world: World, stop: StopRequest
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
    resume_point = world.broadcast_from_main(
        lambda: _find_and_check_resume_point(builder, model, command_files, world.rank_info)
    )
    if resume_point.finished is not None:
        _log.info("%s", resume_point.finished)
        return None
    if resume_point.checkpoint is not None:
        # A file that does not fit is refused here, before data are built. A training loads the weights again
        # with the rest of its state.
        apply_adapted_weights(resume_point.checkpoint, model, str(resume_point.path))
        if config.evaluate or config.export:
            resume_point.checkpoint.clear()
        if config.use_graph is not None:
            option = config.option("use_graph")
            _log.info("%s is not read: wiring and weights are those of %s", option, resume_point.path)
    else:
        load_wiring_and_weights(model, config.use_graph, config.use_init)
    if config.export is not None:
        return world.run_on_main(lambda: _export(builder, model, str(config.export)))
    with memory_errors_explained(lambda: f"model: {config.model} on {world.device}"):
        model.to(world.device)
    if is_user_code(config.model):
        shape = (config.in_channels, config.image_size, config.image_size)
        check_logits(model, config.model, shape, config.output_size)
    if config.channels_last:
        use_channels_last(model)
    if config.compile:
        compile_network(model, world.device)
    with threads_in_use(_threads(config, model, world)):
        if config.evaluate:
            run_folder, results = _evaluate(builder, model, world, resume_point, stop)
        else:
            run_folder, results = _train(builder, command_files.extra_files, model, world, resume_point, stop)
    if run_folder is None:
        return None
    return run_folder.write_results(results, world.rank_info, str(world.device), command_files.write_files)


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


def _find_and_check_resume_point(
    builder: ComponentBuilder, model: nn.Module, command_files: CommandFiles, rank_info: RankInfo
) -> ResumePoint:
    """The checkpoint of the key `resume` or of an earlier start of the run, or none."""
    config = builder.config
    trains = not config.evaluate and config.export is None
    resume_point = find_resume_point(
        checkpoint_dir_of(config),
        config.resume,
        rank_info,
        required=not trains,
        file_format=format_named(config.checkpoint_format),
        convert_settings=command_files.convert_settings,
    )
    if resume_point.path is None and trains and config.save_checkpoints:
        check_initial_weights(config, command_files.extra_files)
    depends_on_num_epochs = (
        trains and resume_point.checkpoint is not None and _depends_on_num_epochs(builder, model)
    )
    return checked_resume_point(config, resume_point, depends_on_num_epochs)


def _depends_on_num_epochs(builder: ComponentBuilder, model: nn.Module) -> bool:
    """Whether training depends on `num_epochs` from the first step.

    Rules and callbacks that act on gradients may read the number of all steps.
    """
    config = builder.config
    callbacks = callback_classes(config).values()
    components = (
        locate(config.data, "data"),
        find_optimizer(config.optimizer),
        find_lr_schedule(config.lr_scheduler),
        *callbacks,
    )
    return (
        "num_epochs" in builder.used
        or any(takes(component, "num_epochs") for component in components)
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
    builder: ComponentBuilder, model: nn.Module, world: World, resume_point: ResumePoint, stop: StopRequest
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
            builder.used.add("use_dgl")  # read here, not by a component
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
    run_folder = world.run_on_main(lambda: RunFolder(run_settings(config)))
    precision = Precision(config.amp, world.device)
    size = config.test_batch_size or config.batch_size
    evaluating = memory_errors_explained(lambda: f"test_batch_size: evaluating {_batch_of(config, size)}")
    with label_errors_explained(spec), evaluating:
        metrics = evaluate_and_time(model, batches, config.topk, precision, world, stop)
    results = {**metrics, **observations(model), **cost_numbers(cost), "engine": engine}
    results["threads"] = torch.get_num_threads()
    return run_folder, {**results, **corrupt_images(data, world), "started_from": resume_point.started_from}


def _batch_of(config: Config, size: int | None = None) -> str:
    """Description of a batch, for messages about memory."""
    return (
        f"a batch of {size or config.batch_size} images of {config.image_size} × {config.image_size} pixels"
    )


def _train(
    builder: ComponentBuilder,
    extra_files: Sequence[str],
    model: nn.Module,
    world: World,
    resume_point: ResumePoint,
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
    builder.used |= {"num_epochs", "accumulate"}  # read by the trainer below, not by a component
    state, first_step = None, config.start_epoch * len(train)
    if resume_point.checkpoint is not None:
        state = resumable_state(
            resume_point.checkpoint,
            str(resume_point.path),
            config.model_dump(),
            model,
            optimizer,
            len(train),
            config.topk,
        )
        first_step = state["iter"]
    checkpoint_dir = checkpoint_dir_of(config) if config.save_checkpoints else None
    outputs = world.run_on_main(
        lambda: RunOutputs(checkpoint_dir, run_settings(config), world.rank_info, resume_point, first_step)
    )

    def open_checkpoints() -> None:
        if outputs is not None:
            outputs.open_checkpoints(format_named(config.checkpoint_format), extra_files)

    # A run that is refused leaves no folder, and moves no checkpoints of earlier runs.
    with nullcontext() if outputs is None else outputs.run_folder.removed_on_error():
        user_callbacks = build_user_callbacks(builder, classes, outputs)
        builder.warn_of_unused()
        world.barrier()  # all processes have their callbacks
        world.run_on_main(open_checkpoints)
    statistics = EdgeStatistics(Wiring(model), functools.partial(observations, model))
    callbacks = build_callbacks(config, model, world, outputs, resume_point, first_step, statistics)
    callbacks += user_callbacks
    criterion = Criterion(config.label_smoothing, config.mixup, config.seed)
    precision = Precision(config.amp, world.device, config.loss_scale)
    step = build_captured_step(config, model, optimizer, criterion, precision, callbacks, world)
    trainer = Trainer(
        model, optimizer, schedule, train, val, config.num_epochs, config.topk, config.log_interval,
        callbacks=callbacks, criterion=criterion, precision=precision, accumulate=config.accumulate,
        world=world, stop=stop, observe=statistics.observe, captured_step=step,
        validate_every=config.validate_every,
    )  # fmt: skip
    if resume_point.checkpoint is not None and state is not None:
        trainer.load_state_dict(state)
        state.clear()
        resume_point.checkpoint.clear()
    else:
        trainer.epoch, trainer.step = config.start_epoch, first_step
    masks_at_start = Wiring(model).adjacency()
    training = memory_errors_explained(lambda: f"batch_size: training by {_batch_of(config)}")
    with label_errors_explained(spec), training:
        results: dict[str, Any] = trainer.fit()
    if config.validation:
        results["best_val"] = trainer.best_val
    else:
        if not results and outputs is not None:  # all epochs were trained by an earlier start
            results = _last_metrics(config, outputs.run_folder)
        results = {f"train_{name}": value for name, value in results.items()}
    results |= {"epochs": trainer.epoch, "steps": trainer.step, "threads": torch.get_num_threads()}
    results |= {**observations(model), "started_from": resume_point.started_from}
    new_edges = count_new_edges(model, masks_at_start)
    cost = profiled(config, model, new_edges)
    results |= cost_numbers(cost, new_edges)
    if statistics.is_complete:
        results |= statistics.percentages()
        results |= training_cost(statistics.history, cost, statistics.images)
    results |= corrupt_images(data, world)
    return None if outputs is None else outputs.run_folder, results


def _last_metrics(config: Config, run_folder: RunFolder) -> dict[str, Any]:
    """Loss and accuracies in the last line of `metrics.jsonl`."""
    names = ("CELoss", *(f"top{k}_accuracy" for k in config.topk))
    return {
        name: value for line in run_folder.metrics()[-1:] for name, value in line.items() if name in names
    }
