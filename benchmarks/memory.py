"""Peak memory of a training step: the plain definition, this framework, and this framework with all edges.

    python -m benchmarks.memory APP [--batch_size N] [--rounds N] [--steps N]
        [--threads N] [--json FILE]

Each is measured in its own process: the peak of the resident memory in a few steps, minus that before the
first one, so that gradients and momenta are counted, but not weights and images.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch

from benchmarks.peak import peak_memory
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
            peaks[name].append(peak_memory(_steps, options, name))
    medians = {name: statistics.median(values) for name, values in peaks.items()}
    for name, values in peaks.items():
        low, median, high = (peak / 2**20 for peak in (min(values), medians[name], max(values)))
        ratio = medians[name] / medians[names[0]]
        cells = (name, f"{median:.0f} MiB ({low:.0f} to {high:.0f})", f"{ratio:.2f}")
        report.add(cells, edges=name, min=min(values), median=medians[name], max=max(values))
    return report


def _steps(options: argparse.Namespace, name: str) -> Callable[[], object]:
    torch.set_num_threads(options.threads)
    step = make_candidates(options.app, options.batch_size)[name]()
    return lambda: [step.run() for _ in range(options.steps)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("app")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2)
    run(measure_memory, parser)
