"""Work and speed of each step of the native engine, compared with the limits of the machine.

    python -m benchmarks.roofline [--app APP] [--wiring trained] [--batch_size 1] [--rounds N]
        [--threads 1] [--json FILE]

--wiring: see benchmarks.wirings. A step is one layer: sums over edges with the 3×3 filters that
follow, or the classifier. Read: the maps of the sources, once for each edge, and the weights; the speed
depends on the caches. Limits: a matrix product of torch in the same threads, and the sums of a tensor that
fits into the L2 cache and of one that fits into no cache.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from benchmarks.report import Report, run
from benchmarks.wirings import WIRINGS, make_network
from genutil.config import load_config
from genutil.exceptions import UserError
from wirings.compacting import compact
from wirings.native import NativeNetwork
from wirings.native.operations import Kind
from wirings.native.program import Program, Step


def work_of(program: Program, step: Step) -> tuple[int, int, int]:
    """(edges, multiply-accumulates, bytes read) of a step for one image."""
    pixels, written = (
        int(np.prod(program.geometries[number][:2])) for number in (step.from_geometry, step.to_geometry)
    )
    filtered = step.count * step.size**2 * written
    if step.kind == Kind.LINEAR:
        size = step.inputs * step.count
        return size, size, (2 if step.halves >= 0 else 4) * step.inputs * step.columns
    if step.kind == Kind.DEPTHWISE:
        return 0, filtered, 4 * step.count * pixels
    if step.kind != Kind.SUM:
        return 0, 0, 4 * step.count * pixels
    read = 4 * step.num_edges * pixels + 4 * (step.num_edges + step.num_weights)
    return step.num_weights, step.num_weights * pixels + filtered, read


def executed_macs(network: NativeNetwork, size: int) -> int:
    """Multiply-accumulates that the engine executes for an image of size × size pixels."""
    program = network.program(size, size)
    return sum(work_of(program, Step(*row))[1] for row in program.steps.tolist())


def limits(threads: int) -> list[str]:
    """Limits of this machine, as measured."""
    torch.set_num_threads(threads)
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    lines = [f"matrix product of torch: {2**30 / _median(lambda: left @ right) / 1e9:.0f} GMAC/s"]
    for size in (2**19, 2**27):
        numbers = torch.zeros(size // 4)
        lines.append(f"reading {size // 2**10:,} kB: {size / _median(numbers.sum) / 1e9:.0f} GB/s")
    return lines


def _median(call: object, repeats: int = 15) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()  # type: ignore[operator]
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure_steps(options: argparse.Namespace) -> Report:
    model = compact(make_network(options.app, options.wiring), "native")
    if not isinstance(model, NativeNetwork):
        raise UserError("benchmarks.roofline measures MobileNet graphs")
    config = load_config(options.app)
    images = torch.randn(options.batch_size, 3, config.image_size, config.image_size)
    program = model.program(config.image_size, config.image_size)
    steps = [Step(*row) for row in program.steps.tolist()]
    model(images)
    seconds = torch.stack([model.step_seconds(images) for _ in range(options.rounds)]).median(0).values
    report = Report(
        f"Steps of the native engine, {config.name}, batch {options.batch_size}",
        ("step", "nodes", "map", "edges", "MMAC", "read, MB", "time", "GMAC/s", "GB/s", "fraction"),
        notes=[
            f"wiring: {options.wiring}; rounds: {options.rounds}, medians; for an "
            f"image, in the first of {options.threads} threads",
            "; ".join(limits(options.threads)),
        ],
    )
    by_image = options.batch_size >= options.threads  # each thread computes whole images
    num_images = options.batch_size / (options.threads if by_image else 1)
    for name, step, spent in zip(program.names, steps, (seconds / num_images).tolist(), strict=True):
        edges, macs, read = work_of(program, step)
        height, width = program.geometries[step.from_geometry][:2]
        name = f"{name}, {Kind(step.kind).name.lower()}"
        report.add(
            (
                name, f"{step.count:,}", f"{height}×{width}", f"{edges:,}", f"{macs / 1e6:.2f}",
                f"{read / 1e6:.2f}", f"{1e6 * spent:.0f} µs", f"{macs / spent / 1e9:.1f}",
                f"{read / spent / 1e9:.0f}", f"{100 * spent * num_images / float(seconds.sum()):.0f}%",
            ),
            step=name, edges=edges, macs=macs, read=read, seconds=spent,
        )  # fmt: skip
    total = sum(result["macs"] for result in report.results)
    spent = float(seconds.sum()) / num_images
    report.notes.append(
        f"all: {total / 1e6:.1f} MMAC in {1e3 * spent:.2f} ms, {total / spent / 1e9:.1f} GMAC/s"
    )
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--app", default="apps/large_scale/mobilenetv1_dnw_x225.yml")
    parser.add_argument("--wiring", choices=WIRINGS, default="trained", help="see benchmarks.wirings")
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=100)
    run(measure_steps, parser)
