"""Construction of an experiment's components: data, batches, optimizer, schedule, callbacks, CUDA graph."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genutil.checkpoint.file_names import format_named
from genutil.config import Config
from genutil.config.components import ComponentBuilder, locate
from genutil.config.identity import identity
from genutil.devices import available_cpus
from genutil.distributed.world import World
from genutil.memory import require_memory_for_training, sizes_checked
from genutil.runs.checkpoint_folder import RunOutputs
from genutil.runs.resume_point import ResumePoint
from models.costs import profiled
from models.wiring_state import wiring_layout, wiring_state
from trainers.batch_checks import (
    BatchSpec,
    CheckedBatches,
    batch_spec,
    check_smallest_shard,
)
from trainers.batches import Batches, LimitedBatches, as_batches
from trainers.callback_base import Callback, EveryEpochs, EverySteps, acts_on_gradients
from trainers.callbacks import MetricsFile, Progress, TensorBoard, WiringSummaries, WiringUpdate
from trainers.captured import CapturedStep, obstacle_to_capture, whole_batch_step
from trainers.checkpointing import CheckpointSaver
from trainers.component_checks import (
    check_data,
    check_parameters,
    checked_callback,
    checked_optimizer,
    checked_schedule,
)
from trainers.criterion import Criterion
from trainers.edge_statistics import EdgeStatistics
from trainers.optimizers import find_optimizer, make_lr_tensor, without_decay_of_norms
from trainers.precision import Precision
from trainers.schedules import Schedule, find_lr_schedule, warmed_up
from trainers.wiring_recorder import DoublingSteps, WiringRecorder
from wirings.structure import waits_for_device
from wirings.wiring import Wiring

_IMAGE_INTERVAL = 10
"""Epochs between two pictures of the wiring for TensorBoard, see `trainers.callback_base.is_due`."""
_log = logging.getLogger(__name__)


def build_data(builder: ComponentBuilder, world: World, *names: str) -> Any:
    """The data set; its attributes `names` have batches."""
    workers = builder.config.workers
    if world.rank_info.local_size > 1 and workers != 0:
        available = available_cpus()
        on_machine = available if workers == "auto" else min(workers, available)
        workers = max(1, on_machine // world.rank_info.local_size)
    path = builder.config.data
    kind = locate(path, "data")
    with sizes_checked(f"data: {path}", builder.sizes_used):
        data = builder.build_named("data", kind, "data_args", device=world.device, workers=workers)
    check_data(data, path, names)
    return data


def find_batch_spec(builder: ComponentBuilder, model: nn.Module) -> BatchSpec:
    """Types, shapes and labels of the network's batches. Called before another component is built."""
    config = builder.config
    sizes: dict[str, int] = {
        key: getattr(config, key) for key in ("in_channels", "output_size") if key in builder.used
    }
    return batch_spec(model, f"data: {config.data}", sizes)


def build_batches(
    config: Config, source: Any, split: str, world: World, spec: BatchSpec, check_now: bool = False
) -> Batches:
    """Checked shards of the batches of a split (`train` or `val`) for this process.

    `check_now` checks the first batch before it is used.
    """

    def checked(batches: Batches) -> Batches:
        checked_batches = CheckedBatches(batches, spec, split)
        if check_now:
            checked_batches.check_first()
        return checked_batches

    batches = as_batches(source, world, checked)
    return batches if config.max_batches is None else LimitedBatches(batches, config.max_batches)


def check_shards(config: Config, model: nn.Module, data: Any, world: World) -> None:
    """Check that batch norms have more than one value in every step, if the number of images is known."""
    num_images = getattr(data.train, "num_images", None)
    if num_images is not None and config.max_batches is None and not (config.sync_bn and world.size > 1):
        shape = (config.in_channels, config.image_size, config.image_size)
        check_smallest_shard(model, shape, num_images, config.batch_size, config.accumulate, world.size)


def build_optimizer_and_schedule(
    builder: ComponentBuilder, model: nn.Module, world: World, steps_per_epoch: int
) -> tuple[torch.optim.Optimizer, Schedule]:
    config = builder.config
    check_parameters(model, config.model)
    if world.device.type == "cpu":
        has_momentum = config.optimizer == "sgd" and config.momentum > 0
        require_memory_for_training(model, config.model, has_momentum, world.rank_info.local_size)
    parameters = model.parameters() if config.norm_weight_decay else without_decay_of_norms(model)
    optimizer = builder.build_named("optimizer", find_optimizer(config.optimizer), parameters=parameters)
    schedule = builder.build_named(
        "lr_scheduler", find_lr_schedule(config.lr_scheduler), steps_per_epoch=steps_per_epoch
    )
    schedule = warmed_up(
        checked_schedule(schedule, config.lr_scheduler), config.lr, steps_per_epoch, config.warmup
    )
    return checked_optimizer(optimizer, config.optimizer), schedule


def build_callbacks(
    config: Config,
    model: nn.Module,
    world: World,
    outputs: RunOutputs | None,
    resume_point: ResumePoint,
    first_step: int,
    statistics: EdgeStatistics,
) -> list[Callback]:
    """Callbacks of the project. Those that only report are in the first process only."""
    wiring, cost = Wiring(model), profiled(config, model)
    callbacks: list[Callback] = [statistics]
    if outputs is not None:
        macs = None if config.skip_profiling or cost is None else cost.macs
        board = TensorBoard(outputs.run_folder, macs, first_step)
        are_graphs = all(rule.potential.layer is None for rule in wiring.rules.values())
        layers = functools.partial(_masks_and_weights, wiring)
        summaries = WiringSummaries(board, statistics.churn_of_layers, layers, are_graphs)
        callbacks += [Progress(), MetricsFile(outputs.run_folder), board, summaries]
        callbacks.append(EveryEpochs(_IMAGE_INTERVAL, summaries.draw))
    if wiring.has_after_backward:
        callbacks.append(WiringUpdate(wiring))
    if config.record_wiring:
        callbacks += _recorder(config, model, outputs, first_step)
    if not config.save_checkpoints:
        return [*callbacks, EveryEpochs(1, lambda _: wiring.check_counts())]
    saver = CheckpointSaver(
        checkpoint_folder=None if outputs is None else outputs.checkpoint_folder,
        wirings=lambda: wiring.adjacency().values(),
        check=wiring.check_counts,
        metadata={} if outputs is None else _checkpoint_metadata(config, world, outputs, resume_point),
        checkpoint_interval=config.checkpoint_interval,
        keep_last=config.keep_last,
        file_format=format_named(config.checkpoint_format),
    )
    callbacks.append(saver)
    if config.checkpoint_interval_steps is not None:
        callbacks.append(EverySteps(config.checkpoint_interval_steps, saver.save_within_epoch))
    return callbacks


def _masks_and_weights(wiring: Wiring) -> list[tuple[Tensor, Tensor]]:
    """Edges in use and weights of each wired layer, as (targets, sources) matrices."""
    weights = [rule.weight for rule in wiring.rules.values()]
    masks = wiring.adjacency().values()
    return [(mask.flatten(1), weight.flatten(1)) for mask, weight in zip(masks, weights, strict=True)]


def _checkpoint_metadata(
    config: Config, world: World, outputs: RunOutputs, resume_point: ResumePoint
) -> dict[str, Any]:
    metadata = {
        "config": config.model_dump(),
        "identity": identity(config.model_dump()),
        "origin": {**outputs.run_folder.environment, "device": str(world.device), "processes": world.size},
        "started_from": resume_point.started_from,
    }
    if config.checkpoint_format == "resnet":
        metadata["arch"] = str(config.model_args.get("arch", config.model))
    return metadata


def _recorder(
    config: Config, model: nn.Module, outputs: RunOutputs | None, first_step: int
) -> list[Callback]:
    layout = wiring_layout(model)
    if not layout:
        if outputs is not None:
            _log.warning("record_wiring: %s has no wired layer; nothing is recorded", type(model).__name__)
        return []
    run_folder = None if outputs is None else outputs.run_folder
    recorder = WiringRecorder(run_folder, layout, functools.partial(wiring_state, model), first_step)
    if config.record_interval is None:
        return [recorder, DoublingSteps(recorder.record)]
    return [recorder, EverySteps(config.record_interval, recorder.record)]


def callback_classes(config: Config) -> dict[str, type[Callback]]:
    """Classes of the key `callbacks`, by their paths."""
    return {path: checked_callback(locate(path, "callbacks"), path) for path in config.callbacks}


def build_user_callbacks(
    builder: ComponentBuilder, classes: Mapping[str, type[Callback]], outputs: RunOutputs | None
) -> list[Callback]:
    """Callbacks of the key `callbacks`; in the first process, or in all if `on_all_processes` is set."""
    folder, settings = (None if outputs is None else outputs.run_folder.path), builder.config.model_dump()
    return [
        builder.build_named("callbacks", kind, path=path, folder=folder, settings=settings)
        for path, kind in classes.items()
        if outputs is not None or kind.on_all_processes
    ]


def build_captured_step(
    config: Config,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: Criterion,
    precision: Precision,
    callbacks: Sequence[Callback],
    world: World,
) -> CapturedStep | None:
    """The training step as a CUDA graph, if `cuda_graph` is set and it can be captured; else None."""
    if not config.cuda_graph:
        return None
    obstacle = obstacle_to_capture(optimizer, world.device, config.amp, world.size)
    if waits_for_device(model):
        obstacle = (
            obstacle or "the forward pass waits for the device; for a graph in time, set ode_solver: rk4"
        )
    if any(acts_on_gradients(type(callback)) for callback in callbacks):
        obstacle = obstacle or "an edge rule or a callback acts between the backward pass and the update"
    if obstacle is not None:
        _log.warning("cuda_graph has no effect: %s", obstacle)
        return None
    make_lr_tensor(optimizer, world.device)
    return CapturedStep(whole_batch_step(model, optimizer, criterion, precision))
