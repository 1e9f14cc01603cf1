"""A training step: the plain definition, this framework, and this framework with all edges in use.

    python -m benchmarks.train_step APP [--batch_size N] [--rounds N] [--threads N] [--json FILE]
        [--also amp=bf16 compile=true]

APP is an experiment file; images are random, so no data set is needed. The plain definition
(benchmarks/baseline.py) sorts all magnitudes in each forward pass, as the published code did.
"""

from __future__ import annotations

import argparse

from benchmarks.machine import measure
from benchmarks.report import Report, run
from benchmarks.steps import make_candidates, make_step
from genutil.config import load_config
from wirings.structure import observations
from wirings.wiring import Wiring


def measure_steps(options: argparse.Namespace) -> Report:
    steps = {name: make() for name, make in make_candidates(options.app, options.batch_size).items()}
    plain, selected, complete = steps
    for change in options.also:
        key, _, value = change.partition("=")
        config = load_config(options.app, {"batch_size": options.batch_size, key: value})
        steps[f"{selected}, {change}"] = step = make_step(config)
        for rule in Wiring(step.network).rules.values():
            rule.freeze_wiring()  # before, fine_tune uses all edges
    times = measure({name: step.run for name, step in steps.items()}, options.rounds, warm_up=2)
    report = Report(
        f"Training step of {options.app}, batch {options.batch_size}",
        ("edges", "step", "plain / this"),
        notes=[f"rounds: {options.rounds}, medians (low to high)"],
    )
    for name, spread in times.items():
        ratio = times[plain].median / spread.median
        report.add((name, str(spread), f"{ratio:.2f}"), edges=name, ratio=ratio, **spread.numbers())
    ratio = times[selected].median / times[complete].median
    report.notes.append(f"with selection / with all edges: {ratio:.3f}")
    for name, step in steps.items():
        for key, number in observations(step.network).items():
            report.notes.append(f"{name}: {key} {number}")
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("app")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--also", nargs="+", default=[], metavar="KEY=VALUE", help="a further row for each")
    run(measure_steps, parser)
