"""A training step: the plain definition, this framework, and this framework with all edges and no selection.

    python -m benchmarks.train_step APP [--batch_size N] [--rounds N] [--threads N] [--json FILE]

APP is an experiment file; images are random, so no data set is needed. The plain definition
(benchmarks/baseline.py) sorts all magnitudes in each forward pass, as the published code did.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.baseline import build_baseline
from benchmarks.machine import describe, header, measure
from genutil.config import Config, load_config
from genutil.tables import markdown_table
from models import build_model
from trainers.optimizers import sgd


def step_of(config: Config, build: Callable[[Config], nn.Module], fused: bool = True) -> Callable[[], None]:
    """One step of SGD on one batch of random images."""
    torch.manual_seed(0)
    model = build(config).train()
    keys = {"momentum": config.momentum, "weight_decay": config.weight_decay}
    if fused:
        optimizer = sgd(model.parameters(), 1e-3, nestorov=False, **keys)
    else:
        optimizer = torch.optim.SGD(model.parameters(), 1e-3, **keys)
    images = torch.randn(config.batch_size, config.in_channels, config.image_size, config.image_size)
    labels = torch.randint(0, config.output_size, (config.batch_size,))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("app")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the numbers to this file, too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keys = {"batch_size": options.batch_size}
    selected = load_config(options.app, keys)
    everything = load_config(options.app, {**keys, "graph": "complete"})
    print(header(f"Training step of {selected.name}, batch {selected.batch_size}"))
    steps = {
        "plain definition": step_of(selected, build_baseline, fused=False),
        selected.graph: step_of(selected, build_model),
        "all edges": step_of(everything, build_model),
    }
    times = measure(steps, options.rounds, warm_up=2)
    print(f"rounds: {options.rounds}, medians (low to high)\n")
    plain = times["plain definition"].median
    rows = [(name, str(spread), f"{plain / spread.median:.2f}") for name, spread in times.items()]
    print(markdown_table(("edges", "step", "plain / this"), rows))
    ratio = times[selected.graph].median / times["all edges"].median
    print(f"\nwith selection / with all edges: {ratio:.3f}")
    if options.json:
        medians = {name: spread.median for name, spread in times.items()}
        options.json.write_text(json.dumps({**describe(), "seconds": medians}, indent=2) + "\n")


if __name__ == "__main__":
    main()
