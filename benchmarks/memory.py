"""Peak memory of a training step: the plain definition, this framework, and this framework with all edges.

    python -m benchmarks.memory APP [--batch_size N] [--rounds N] [--steps N]
        [--threads N] [--json FILE]

Each is measured in a process of its own: the largest resident memory while it makes a few steps, less what
was resident before the first one, so that weights and images are not counted, but gradients and momenta are.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks.report import Report, run
from benchmarks.steps import make_candidates


def measure_memory(options: argparse.Namespace) -> Report:
    report = Report(
        f"Peak memory of a training step of {options.app}, batch {options.batch_size}",
        ("edges", "memory", "this / plain"),
        notes=[f"rounds: {options.rounds}, medians (low to high), steps of a round: {options.steps}"],
    )
    names = list(make_candidates(options.app, options.batch_size))
    peaks: dict[str, list[int]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            peaks[name].append(_in_a_process(options, name))
    medians = {name: statistics.median(found) for name, found in peaks.items()}
    for name, found in peaks.items():
        low, median, high = (peak / 2**20 for peak in (min(found), medians[name], max(found)))
        ratio = medians[name] / medians[names[0]]
        cells = (name, f"{median:.0f} MiB ({low:.0f} to {high:.0f})", f"{ratio:.2f}")
        report.add(cells, edges=name, min=min(found), median=medians[name], max=max(found))
    return report


def _in_a_process(options: argparse.Namespace, name: str) -> int:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_peak, args=(options, name, there))
    process.start()
    there.close()
    try:
        return int(here.recv())
    finally:
        process.join()


def _peak(options: argparse.Namespace, name: str, answer: Connection) -> None:
    torch.set_num_threads(options.threads)
    step = make_candidates(options.app, options.batch_size)[name]()
    before = _resident()
    for _ in range(options.steps):
        step.run()
    unit = 1 if sys.platform == "darwin" else 1024
    answer.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before)


def _resident() -> int:
    """Linux tells the present value; elsewhere the largest so far has to do."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("app")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2)
    run(measure_memory, parser)
