"""Training steps to measure: one batch of random images, one step of SGD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.baseline import build_baseline
from genutil.config import Config, load_config
from models import build_model
from models.compiling import compile_network
from trainers.optimizers import sgd
from trainers.precision import Precision

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Step:
    """A network and its training step."""

    network: nn.Module
    run: Callable[[], None]


def make_step(config: Config, plain: bool = False) -> Step:
    """The step of an experiment.

    Args:
        config: names the network, its edge rule, the batch size, `amp` and `compile`.
        plain: the plain definition (benchmarks/baseline.py) with torch's plain SGD.
    """
    torch.manual_seed(0)
    network = (build_baseline(config) if plain else build_model(config)).train()
    settings = {"lr": 1e-3, "momentum": config.momentum, "weight_decay": config.weight_decay}
    if plain:
        optimizer: torch.optim.Optimizer = torch.optim.SGD(network.parameters(), **settings)
    else:
        optimizer = sgd(network.parameters(), nestorov=False, **settings)
    if config.compile:
        compile_network(network, CPU)
    precision = Precision(config.amp, CPU)
    images = torch.randn(config.batch_size, config.in_channels, config.image_size, config.image_size)
    labels = torch.randint(0, config.output_size, (config.batch_size,))

    def step() -> None:
        with precision.autocast():
            loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad(set_to_none=True)
        precision.backward(loss)
        precision.step(optimizer)

    return Step(network, step)


def make_candidates(app: str, batch_size: int) -> dict[str, Callable[[], Step]]:
    """Makers of what is always compared: plain definition, this framework, and all edges unselected."""
    selected = load_config(app, {"batch_size": batch_size})
    everything = load_config(app, {"batch_size": batch_size, "graph": "complete"})
    return {
        "plain definition": lambda: make_step(selected, plain=True),
        selected.graph: lambda: make_step(selected),
        "all edges": lambda: make_step(everything),
    }
