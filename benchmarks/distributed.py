"""A training step in several processes, compared with the same global batch in one.

    python -m benchmarks.distributed [APP] [--batch_size N] [--processes N] [--rounds N] [--steps N]
        [--threads N] [--json FILE]

One process has all threads; with N processes, each has an Nth of them. Both are started once and measured
alternately. The difference of their losses is measured with batch norms in evaluation mode, since each
process uses the statistics of its own images, and in float64: in float32, rounding alone makes two wirings
diverge after a dozen steps.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.machine import Spread
from benchmarks.processes import ProcessPool, Work, slowest
from benchmarks.report import Report, run
from genutil.config import load_config
from genutil.distributed.rank_info import shard_slice
from genutil.distributed.world import World
from models import build_model
from trainers.optimizers import sgd
from trainers.parallel import DataParallelModel


def prepare_steps(
    world: World, app: str, batch_size: int, norms_train: bool = True, dtype: torch.dtype = torch.float32
) -> Work:
    """Training steps on one random batch, divided among the processes."""
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    config = load_config(app, {"batch_size": batch_size})
    network = build_model(config).train()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.train(norms_train)
    parallel = DataParallelModel(network, world)
    optimizer = sgd(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, nestorov=False)
    images = torch.randn(batch_size, config.in_channels, config.image_size, config.image_size)
    labels = torch.randint(0, config.output_size, (batch_size,))
    shard = shard_slice(batch_size, world.rank, world.size)
    images, labels = images[shard], labels[shard]

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        (batch,) = parallel.microbatches(images, labels)
        loss = F.cross_entropy(parallel(batch.images), batch.labels) * batch.loss_weight
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    def work(steps: int) -> tuple[float, list[float]]:
        world.barrier()
        started = time.perf_counter()
        losses = torch.stack([step() for _ in range(steps)])
        seconds = slowest(world, time.perf_counter() - started) / steps
        return seconds, (world.sum(losses.double()) / world.size).tolist()

    return work


def measure_processes(options: argparse.Namespace) -> Report:
    threads = max(1, options.threads // options.processes)
    sizes = {
        f"1 process, threads {options.threads}": (1, options.threads),
        f"{options.processes} processes, threads {threads} each": (options.processes, threads),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sizes}
    pools = {
        name: ProcessPool(size, prepare_steps, options.app, options.batch_size, threads=threads)
        for name, (size, threads) in sizes.items()
    }
    for number in range(1 + options.rounds):
        for name, pool in pools.items():
            step_seconds, _ = pool.run(options.steps)[0]
            seconds[name] += [step_seconds] if number else []
    for pool in pools.values():
        pool.close()
    report = Report(
        f"Training step of {options.app} by several processes, global batch {options.batch_size}",
        ("processes", "step", "this / one process"),
        notes=[
            f"rounds of {options.steps} steps: {options.rounds}, medians (low to high)",
        ],
    )
    first, second = (_losses(options, size) for size, _ in sizes.values())
    difference = max(abs(one - other) / abs(one) for one, other in zip(first, second, strict=True))
    report.notes.append(
        f"losses of {len(first)} steps in float64, with batch norms in evaluation mode, differ by "
        f"{difference:.1e} at most (relative)"
    )
    base = statistics.median(next(iter(seconds.values())))
    for name, times in seconds.items():
        spread = Spread(min(times), statistics.median(times), max(times), len(times))
        ratio = spread.median / base
        report.add((name, str(spread), f"{ratio:.2f}"), processes=name, ratio=ratio, **spread.numbers())
    return report


def _losses(options: argparse.Namespace, size: int) -> list[float]:
    pool = ProcessPool(size, prepare_steps, options.app, 8 * options.processes, False, torch.float64)
    losses: list[float] = pool.run(50)[0][1]
    pool.close()
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("app", nargs="?", default="apps/small_scale/static_dnw.yml")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    run(measure_processes, parser)
