"""A training step with selected edges against the same network with all edges and no selection.

    python -m benchmarks.train_step APP [--batch_size N] [--rounds N]

APP is an experiment file; images are random, so no data set is needed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.machine import header, measure
from genutil.config import Config, load_config
from models import build_model


def step_of(config: Config) -> Callable[[], None]:
    """One step of SGD on one batch of random images."""
    torch.manual_seed(0)
    model = build_model(config).train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, config.momentum, weight_decay=config.weight_decay)
    images = torch.randn(config.batch_size, config.in_channels, config.image_size, config.image_size)
    labels = torch.randint(0, config.output_size, (config.batch_size,))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("app")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    keys = {"batch_size": options.batch_size}
    selected = load_config(options.app, keys)
    everything = load_config(options.app, {**keys, "graph": "complete"})
    print(header(f"Training step of {selected.name}, batch {selected.batch_size}"))
    times = measure({selected.graph: step_of(selected), "complete": step_of(everything)}, options.rounds, 2)
    print(f"rounds: {options.rounds}, medians (low to high)\n")
    print("| edges | step |\n|---|---|")
    for name, spread in times.items():
        print(f"| {name} | {spread} |")
    print(f"\nwith selection / without: {times[selected.graph].median / times['complete'].median:.3f}")


if __name__ == "__main__":
    main()
