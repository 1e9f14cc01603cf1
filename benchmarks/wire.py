"""A training step of a network of torchvision, unwired and wired with each rule.

    python -m benchmarks.wire [--name resnet18] [--density X] [--batch_size N] [--image_size N] [--rounds N]
        [--rules dnw random …] [--threads N] [--json FILE]

The wired network multiplies with dense weights, zeros included, as the unwired one does; the difference is
the selection and its backward pass.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import wirings
from benchmarks.machine import measure
from benchmarks.report import Report, run


def make_step(network: nn.Module, batch_size: int, image_size: int) -> Callable[[], object]:
    """Forward pass, backward pass and update of one random batch."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    images = torch.randn(batch_size, 3, image_size, image_size)
    labels = torch.randint(0, 10, (batch_size,))

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


def measure_wired(options: argparse.Namespace) -> Report:
    torch.manual_seed(0)
    plain = torchvision.models.get_model(options.name, num_classes=10).train()
    networks = {"unwired": plain}
    for rule in options.rules:
        networks[rule] = copy.deepcopy(plain)
        wirings.wire(networks[rule], rule, density=options.density)
    candidates = {
        name: make_step(network, options.batch_size, options.image_size) for name, network in networks.items()
    }
    times = measure(candidates, options.rounds, warm_up=2)
    report = Report(
        f"Training step of {options.name}, density {options.density}, batch {options.batch_size}, "
        f"{options.image_size} px",
        ("network", "step", "this / unwired"),
        notes=[f"rounds: {options.rounds}, medians (low to high)"],
    )
    for name, spread in times.items():
        ratio = spread.median / times["unwired"].median
        report.add((name, str(spread), f"{ratio:.3f}"), network=name, ratio=ratio, **spread.numbers())
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="resnet18")
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--rules", nargs="+", default=["dnw", "random", "dnw_no_update"])
    parser.add_argument("--rounds", type=int, default=9)
    run(measure_wired, parser)
