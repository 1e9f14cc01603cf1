"""Learning curves of this framework and of the plain definition: same images, same initial weights.

    python -m benchmarks.learning_curves [--app APP] [--images N] [--epochs N] [--data_dir D] [--seeds 0 1]
        [--threads N] [--json FILE]

Rounding differs, and a wiring in training is chaotic: two runs diverge after some steps, as two seeds do. So
each is shown with several seeds.
"""

from __future__ import annotations

import argparse
import copy

import torch
from torch import nn

from benchmarks.baseline import Baseline
from benchmarks.report import Report, run
from data.fashion_mnist import FashionMNIST
from genutil.config import Config, load_config
from models import build_model
from trainers.callback_base import Callback, Training
from trainers.optimizers import sgd
from trainers.schedules import cosine
from trainers.trainer import Trainer


class Curve(Callback):
    """Records the metrics of each epoch."""

    def __init__(self) -> None:
        self.points: dict[str, list[dict[str, float]]] = {"train": [], "val": []}

    def on_metrics(self, trainer: Training, phase: str, metrics: dict[str, float]) -> None:
        self.points[phase].append(metrics)


def train(network: nn.Module, config: Config, images: int, epochs: int) -> Curve:
    """Train on the first `images` of Fashion-MNIST, test on its 10,000 test images after each epoch."""
    data = FashionMNIST(
        config.data_dir, config.batch_size, config.test_batch_size, seed=config.seed, num_images=images
    )
    optimizer = sgd(network.parameters(), config.lr, config.momentum, config.weight_decay, config.nestorov)
    schedule, curve = cosine(config.lr, len(data.train), epochs), Curve()
    Trainer(network, optimizer, schedule, data.train, data.val, epochs, [1], 10**9, [curve]).fit()
    return curve


def measure_curves(options: argparse.Namespace) -> Report:
    report = Report(
        f"Learning curves of {options.app} on the first {options.images:,} images of Fashion-MNIST",
        (
            "seed",
            "epoch",
            *(f"{variant}: {metric}" for variant in VARIANTS for metric in ("train loss", "test top-1")),
        ),
    )
    for seed in options.seeds:
        keys = {"seed": seed, "data_dir": options.data_dir} if options.data_dir else {"seed": seed}
        config = load_config(options.app, keys)
        torch.manual_seed(seed)
        network = build_model(config)
        plain = Baseline(copy.deepcopy(network))
        curves = [train(model, config, options.images, options.epochs).points for model in (plain, network)]
        for epoch in range(options.epochs):
            numbers = [
                (curve["train"][epoch]["CELoss"], curve["val"][epoch]["top1_accuracy"]) for curve in curves
            ]
            cells = [cell for loss, top1 in numbers for cell in (f"{loss:.4f}", f"{top1:.2f} %")]
            row = (str(seed), str(epoch + 1), *cells)
            report.add(row, seed=seed, epoch=epoch + 1, plain=numbers[0], here=numbers[1])
    return report


VARIANTS = ("plain definition", "here")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--app", default="apps/quickstart/fashion_mnist_dnw.yml")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--data_dir", help="folder of the images; by default that of the experiment")
    run(measure_curves, parser)
