"""Costs that grow with the number of processes: the numbers of docs/scaling.md.

    python -m benchmarks.scaling [APP] [--processes N ...] [--rounds N] [--images N]
        [--threads N] [--json FILE]

For the network of APP: bytes of a step's gradients and the time of their all-reduce between processes on this
machine (gloo, loopback), a checkpoint's size and the times to write, read and check it, and the number of
images like ImageNet's that one CPU decodes. No training step is timed; benchmarks.distributed does that.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import nn

from benchmarks.processes import ProcessPool, Work, slowest
from benchmarks.report import Report, run
from data.image_folder import ImageFiles
from data.imagenet import training_crop
from genutil.checkpoint import read_checkpoint, save_checkpoint
from genutil.config import load_config
from genutil.distributed.world import World
from models import build_model
from trainers.optimizers import sgd
from wirings.checksum import digest

_MESSAGES = 200
_WIDTH, _HEIGHT, _QUALITY = 500, 375, 95
"""An image of ImageNet's usual size; noise and quality give its usual 110 kB."""


def prepare_sums(world: World, count: int) -> Work:
    """All-reduce of `count` float32 numbers."""
    numbers = torch.ones(count)

    def work(rounds: int) -> list[float]:
        times = []
        for _ in range(rounds):
            world.barrier()
            started = time.perf_counter()
            dist.all_reduce(numbers)
            times.append(slowest(world, time.perf_counter() - started))
        return times

    return work


def prepare_messages(world: World) -> Work:
    """All-reduce of a training step's status, without overlap."""

    def work(rounds: int) -> list[float]:
        times = []
        for _ in range(rounds):
            world.barrier()
            started = time.perf_counter()
            for _ in range(_MESSAGES):
                world.all_reduce_step_status(8, None)()
            times.append(slowest(world, time.perf_counter() - started) / _MESSAGES)
        return times

    return work


def training_state(app: str) -> tuple[int, dict[str, object]]:
    """(number of weights, content of a checkpoint of this experiment after a first step)."""
    torch.manual_seed(0)
    network: nn.Module = build_model(load_config(app))
    optimizer = sgd(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.0, nestorov=False)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    count = sum(parameter.numel() for parameter in network.parameters())
    return count, {"model": network.state_dict(), "optimizer": optimizer.state_dict()}


def jpeg_image(randomness: np.random.Generator) -> bytes:
    """A JPEG file of smooth random shapes with noise."""
    coarse = randomness.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC), np.int16)
    noise = randomness.normal(0, 12, smooth.shape).astype(np.int16)
    file = io.BytesIO()
    Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def timed(work: Callable[[], object], rounds: int) -> float:
    """Median seconds of a call."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measure_scaling(options: argparse.Namespace) -> Report:
    count, state = training_state(options.app)
    report = Report(f"Costs that grow with the number of processes, for {options.app}", ("what", "measured"))
    report.add(("weights", f"{count:,}"), what="weights", value=count)
    report.add(("gradients of a step", f"{4 * count / 1e6:.1f} MB"), what="gradient bytes", value=4 * count)
    for size in options.processes:
        pool = ProcessPool(size, prepare_sums, count)
        seconds = statistics.median(pool.run(options.rounds + 1)[0][1:])
        pool.close()
        name = f"their all-reduce, {size} processes"
        report.add((name, f"{1000 * seconds:.0f} ms"), what=name, value=seconds)
    pool = ProcessPool(2, prepare_messages)
    seconds = statistics.median(pool.run(options.rounds + 1)[0][1:])
    pool.close()
    name = "all-reduce of a step's status, 2 processes"
    report.add((name, f"{1000 * seconds:.2f} ms"), what=name, value=seconds)
    _add_checkpoint(report, state, options.rounds)
    _add_decoding(report, options.images)
    return report


def _add_checkpoint(report: Report, state: dict[str, object], rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.pt"
        times = {
            "writing it, flushed to disk": timed(lambda: save_checkpoint(path, state), rounds),
            "reading it": timed(lambda: read_checkpoint(path), rounds),
            "its checksum, included in both": timed(lambda: digest(state), rounds),
        }
        size = path.stat().st_size
    report.add(("a checkpoint", f"{size / 1e6:.1f} MB"), what="checkpoint bytes", value=size)
    for name, seconds in times.items():
        report.add((name, f"{1000 * seconds:.0f} ms"), what=name, value=seconds)


def _add_decoding(report: Report, count: int) -> None:
    randomness = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        files = [(str(Path(folder) / f"{number}.jpg"), 0) for number in range(count)]
        for file, _ in files:
            Path(file).write_bytes(jpeg_image(randomness))
        size = sum(Path(file).stat().st_size for file, _ in files) / count
        images = ImageFiles(files, training_crop(224), seed=0)
        torch.set_num_threads(1)
        seconds = timed(lambda: [images[0, number] for number in range(count)], 3)
    report.add(("an image", f"{size / 1e3:.0f} kB"), what="image bytes", value=size)
    name = "decoded and cropped by one CPU"
    report.add((name, f"{count / seconds:.0f} images/s"), what=name, value=count / seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("app", nargs="?", default="apps/large_scale/mobilenetv1_dnw_x225.yml")
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=200)
    run(measure_scaling, parser)
