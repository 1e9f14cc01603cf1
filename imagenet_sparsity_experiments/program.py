"""The program behind main.py: trains, evaluates or measures one network."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from torch import nn
from tqdm import tqdm

from genutil.checkpoint import apply_weights
from genutil.devices import choose_device
from genutil.distributed import World
from genutil.place import Place, find_place
from genutil.reporting import RunFolder
from genutil.run_files import Start, find_start
from genutil.seeding import seed_everything
from genutil.session import run_in_world
from genutil.signals import StopRequest
from imagenet_sparsity_experiments.backends import load_images
from imagenet_sparsity_experiments.configurations import find_configuration
from imagenet_sparsity_experiments.density import density_table, kept_weights, measure_density, total
from imagenet_sparsity_experiments.files import (
    layout_of,
    settings_of,
    workspace,
    write_final_weights,
    write_raport,
)
from imagenet_sparsity_experiments.inference import measure_inference
from imagenet_sparsity_experiments.options import Options
from imagenet_sparsity_experiments.resnet import SparseResNet, load_pretrained, settle
from imagenet_sparsity_experiments.training import Training, step_of
from models.compiling import compile_network, failures_explained
from trainers.evaluation import evaluate
from trainers.latency import Timed
from trainers.precision import Precision

_log = logging.getLogger(__name__)


def run(options: Options) -> dict[str, Any] | None:
    """Train, evaluate or measure, alone or as one of the processes of a run.

    Returns:
        The results; None in all processes of a run but the first.

    Raises:
        UserError, RunError, ToldByAnother, Interrupted: see genutil.session.run_in_world.
    """
    place = find_place()
    device = choose_device(None, None, place or Place())

    def work(world: World, stop: StopRequest) -> dict[str, Any] | None:
        with failures_explained():
            return _run(options, world, stop)

    return run_in_world(work, place, device, options.timeout)


def _run(options: Options, world: World, stop: StopRequest) -> dict[str, Any] | None:
    step_of(options, world.size)  # refuses before anything is loaded
    seed_everything(options.seed)
    network = SparseResNet(
        options.arch, find_configuration(options.model_config), options.num_classes, options.channels_last
    )
    start = _take_weights(network, options, world)
    network.to(world.device)
    layers = measure_density(network, options.image_size)
    _log.info("%s, %s:\n%s", options.arch, options.model_config, density_table(layers))
    every = total(layers)
    cost = {
        "weights": every.weights, "kept": every.kept, "density": every.kept / every.weights,
        "macs": every.macs, "layers": [dataclasses.asdict(layer) for layer in layers],
    }  # fmt: skip
    if options.benchmark_inference or options.evaluate:
        settle(network)
        if options.compile:
            compile_network(network, world.device)
        work = _benchmark if options.benchmark_inference else _evaluate
        return work(network, options, world, stop, cost)
    before = kept_weights(network)
    images = load_images(options, world, step_of(options, world.size)[0])
    if options.compile:
        compile_network(network, world.device)
    training = Training(options, network, images, world, start, stop, every.macs)
    results = training.fit()
    folder = training.folder
    if folder is None:
        return None
    _log.info("%s", density_table(measure_density(network, options.image_size, before)))
    if not options.no_checkpoints:
        write_final_weights(options, network)
    corrupt = {"corrupt_images": len(images.corrupt)} if images.corrupt else {}
    return _written(options, {**results, **cost, **corrupt}, folder, world)


def _take_weights(network: SparseResNet, options: Options, world: World) -> Start:
    """Weights of --resume, of an earlier start of this run, or of --pretrained-weights."""
    start = world.from_main(
        lambda: find_start(
            workspace(options), options.resume, world.place, options.evaluate, layout_of(options)
        )
    )
    if start.content is not None:
        apply_weights(start.content, network, str(start.path))
        before = (start.content.get("config") or {}).get("model_config", options.model_config)
        if options.evaluate and before != options.model_config:
            _log.warning("%s was trained with --model-config %s", start.path, before)
    elif options.pretrained_weights is not None:
        load_pretrained(network, options.pretrained_weights, new_classifier=not options.evaluate)
    return start


def _evaluate(
    network: nn.Module, options: Options, world: World, stop: StopRequest, cost: dict[str, Any]
) -> dict[str, Any] | None:
    images = load_images(options, world, step_of(options, world.size)[0])
    assert images.val is not None
    folder = world.on_main(lambda: RunFolder(settings_of(options, step_of(options, world.size)[0])))
    timed = Timed(network, world.device)
    bar = tqdm(total=len(images.val), desc="evaluating", leave=False, disable=None if world.is_main else True)

    def after_batch() -> None:
        bar.update()
        world.heed(stop)

    with bar, Precision(options.precision, world.device).autocast():
        metrics = evaluate(timed, images.val, options.topk, world.device, after_batch, world)
    results: dict[str, Any] = {**metrics, "images": sum(world.gather(timed.num_images)), **cost}
    results |= {"latency_ms": 1000 * timed.seconds_per_image(), "engine": "plain"}
    return _written(options, results, folder, world) if folder is not None else None


def _benchmark(
    network: nn.Module, options: Options, world: World, stop: StopRequest, cost: dict[str, Any]
) -> dict[str, Any] | None:
    results = {**measure_inference(network, options, world.device), **cost}
    folder = world.on_main(lambda: RunFolder(settings_of(options, step_of(options, world.size)[0])))
    return _written(options, results, folder, world) if folder is not None else None


def _written(options: Options, results: dict[str, Any], folder: RunFolder, world: World) -> dict[str, Any]:
    results = folder.write_results(results, world.place, str(world.device))
    write_raport(options, results, folder.metrics())
    return results
