"""The program behind main.py: trains, evaluates or measures one network."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from genutil.checkpoint import apply_weights
from genutil.devices import choose_device
from genutil.distributed.rank_info import RankInfo, rank_info_from_env
from genutil.distributed.session import run_distributed
from genutil.distributed.world import World
from genutil.runs.resume_point import ResumePoint
from genutil.runs.run_folder import RunFolder
from genutil.seeding import seed_everything
from genutil.signals import StopRequest
from imagenet_sparsity_experiments.backends import load_images
from imagenet_sparsity_experiments.configurations import find_configuration
from imagenet_sparsity_experiments.density import (
    LayerDensity,
    compare,
    density_table,
    masks_in_use,
    measure_density,
    total,
)
from imagenet_sparsity_experiments.files import (
    settings_of,
    write_final_weights,
    write_raport,
)
from imagenet_sparsity_experiments.inference import measure_inference
from imagenet_sparsity_experiments.options import Options
from imagenet_sparsity_experiments.resnet import SparseResNet, load_pretrained
from imagenet_sparsity_experiments.starts import find_checked_resume_point
from imagenet_sparsity_experiments.training import Training, step_of
from models.compiling import compile_errors_as_config_errors, compile_network
from trainers.batches import corrupt_images
from trainers.evaluation import evaluate_and_time
from trainers.precision import Precision
from wirings.wiring import Wiring, unwire

_log = logging.getLogger(__name__)


def run(options: Options) -> dict[str, Any] | None:
    """Train, evaluate or measure, alone or as one of the processes of a run.

    Returns:
        The results; None in all processes of a run but the first, and where nothing is left to train.

    Raises:
        UserError, RunError, ReportedByOtherRank, Interrupted: see run_distributed.
    """
    rank_info = rank_info_from_env()
    device = choose_device(None, None, rank_info or RankInfo())

    def work(world: World, stop: StopRequest) -> dict[str, Any] | None:
        with compile_errors_as_config_errors():
            return _run(options, world, stop)

    return run_distributed(work, rank_info, device, options.timeout, options.deterministic)


def _run(options: Options, world: World, stop: StopRequest) -> dict[str, Any] | None:
    step_of(options, world.size)  # refuses before anything is loaded
    seed_everything(options.seed)
    network = SparseResNet(
        options.arch, find_configuration(options.model_config), options.num_classes, options.channels_last
    )
    start = _take_weights(network, options, world)
    if start.finished is not None:
        _log.info("%s", start.finished)
        return None
    network.to(world.device)
    layers = measure_density(network, options.image_size)
    _log.info("%s, %s:\n%s", options.arch, options.model_config, density_table(layers))
    if options.benchmark_inference or options.evaluate:
        if Wiring(network).rules:
            unwire(network)  # every layer's weights are selected once
        if options.compile:
            compile_network(network, world.device)
        work = _benchmark if options.benchmark_inference else _evaluate
        return work(network, options, world, stop, _cost(layers))
    before = masks_in_use(network)
    images = load_images(options, world, step_of(options, world.size)[0])
    if options.compile:
        compile_network(network, world.device)
    training = Training(options, network, images, world, start, stop, total(layers).macs)
    results = training.fit()
    results |= {**corrupt_images(images, world), "started_from": start.record}
    folder = training.folder
    if folder is None:
        return None
    if not options.no_checkpoints:
        write_final_weights(options, network)
    layers = compare(layers, before, masks_in_use(network))
    _log.info("%s", density_table(layers))
    return _written(options, {**results, **_cost(layers)}, folder, world)


def _cost(layers: Sequence[LayerDensity]) -> dict[str, Any]:
    every = total(layers)
    return {
        "weights": every.weights, "kept": every.kept, "density": every.kept / every.weights,
        "macs": every.macs, "layers": [dataclasses.asdict(layer) for layer in layers],
    }  # fmt: skip


def _take_weights(network: SparseResNet, options: Options, world: World) -> ResumePoint:
    """Weights of --resume, of an earlier start of this run, or of --pretrained-weights."""
    step_size = step_of(options, world.size)[0]
    start = world.broadcast_from_main(lambda: find_checked_resume_point(options, world.rank_info, step_size))
    if start.content is not None:
        apply_weights(start.content, network, str(start.path))
        content: Mapping[str, Any] = start.content
    elif options.pretrained_weights is not None:
        path = options.pretrained_weights
        content = load_pretrained(network, path, new_classifier=not options.evaluate)
    else:
        return start
    before = (content.get("config") or {}).get("model_config", options.model_config)
    if options.evaluate and before != options.model_config:
        _log.warning("these weights were trained with --model-config %s", before)
    return start


def _evaluate(
    network: nn.Module, options: Options, world: World, stop: StopRequest, cost: dict[str, Any]
) -> dict[str, Any] | None:
    images = load_images(options, world, step_of(options, world.size)[0])
    assert images.val is not None
    folder = world.run_on_main(lambda: RunFolder(settings_of(options, step_of(options, world.size)[0])))
    precision = Precision(options.precision, world.device)
    metrics = evaluate_and_time(network, images.val, options.topk, precision, world, stop)
    results = {**metrics, **cost, "engine": "plain", **corrupt_images(images, world)}
    return _written(options, results, folder, world) if folder is not None else None


def _benchmark(
    network: nn.Module, options: Options, world: World, stop: StopRequest, cost: dict[str, Any]
) -> dict[str, Any] | None:
    folder = world.run_on_main(lambda: RunFolder(settings_of(options, step_of(options, world.size)[0])))
    results = {**measure_inference(network, options, world.device), **cost}
    return _written(options, results, folder, world) if folder is not None else None


def _written(options: Options, results: dict[str, Any], folder: RunFolder, world: World) -> dict[str, Any]:
    results = folder.write_results(results, world.rank_info, str(world.device))
    write_raport(options, results, folder.metrics())
    return results
