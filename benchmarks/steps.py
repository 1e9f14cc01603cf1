"""Training steps for benchmarks: one batch of random images, one step of SGD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.baseline import build_baseline
from genutil.config import Config, load_config
from models import build_model
from models.compiling import compile_network
from trainers.captured import CapturedStep
from trainers.optimizers import sgd
from trainers.precision import Precision

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Step:
    """A network and its training step."""

    network: nn.Module
    run: Callable[[], None]


def make_step(config: Config, plain: bool = False, device: torch.device = CPU) -> Step:
    """The step of an experiment.

    Args:
        config: network, edge rule, batch size, `amp`, `compile` and `cuda_graph` are used.
        plain: the plain definition (benchmarks/baseline.py) with torch's plain SGD.
        device: of the network and the images.
    """
    torch.manual_seed(0)
    network = (build_baseline(config) if plain else build_model(config)).to(device).train()
    settings = {"lr": 1e-3, "momentum": config.momentum, "weight_decay": config.weight_decay}
    if plain:
        optimizer: torch.optim.Optimizer = torch.optim.SGD(network.parameters(), **settings)
    else:
        optimizer = sgd(network.parameters(), nestorov=False, **settings)
    if config.compile:
        compile_network(network, device)
    shape = (config.batch_size, config.in_channels, config.image_size, config.image_size)
    images = torch.randn(shape).to(device)
    labels = torch.randint(0, config.output_size, (config.batch_size,)).to(device)
    return Step(
        network, step_on(network, optimizer, images, labels, Precision(config.amp, device), config.cuda_graph)
    )


def step_on(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    precision: Precision,
    captured: bool = False,
    label_smoothing: float = 0.0,
) -> Callable[[], None]:
    """Forward pass, backward pass and update of one batch; `captured`: as one CUDA graph."""

    def update(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with precision.autocast():
            logits = network(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        precision.backward(loss)
        precision.step(optimizer)
        return loss.detach(), logits.detach()

    run = CapturedStep(update) if captured else update

    def step() -> None:
        run(images, labels)

    return step


def make_candidates(app: str, batch_size: int) -> dict[str, Callable[[], Step]]:
    """Functions that make the steps to compare: plain definition, this framework, and all edges in use."""
    selected = load_config(app, {"batch_size": batch_size})
    complete = load_config(app, {"batch_size": batch_size, "graph": "complete"})
    return {
        "plain definition": lambda: make_step(selected, plain=True),
        selected.graph: lambda: make_step(selected),
        "all edges": lambda: make_step(complete),
    }
