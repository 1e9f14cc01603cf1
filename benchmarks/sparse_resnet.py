"""A training step of a ResNet whose layers select their weights, compared with the dense one.

    python -m benchmarks.sparse_resnet [--arch ARCH] [--configs C [C ...]] [--batch_size N] [--image_size N]
        [--rounds N] [--threads N] [--json FILE]

Images are random. The configurations are timed alternately; ratios are to the first one.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

from benchmarks.baseline import by_sorting
from benchmarks.machine import measure
from benchmarks.report import Report, run
from benchmarks.steps import CPU, Step, step_on
from imagenet_sparsity_experiments.options import parse_options
from models import build_model
from models.compiling import use_channels_last
from trainers.optimizers import sgd, without_decay_of_norms
from trainers.precision import Precision
from wirings.rules.base import RankedEdges
from wirings.selection import EdgeSelection
from wirings.topk import Selector
from wirings.wiring import Wiring


class SortingSelector(Selector):
    """Selection by the definition: all magnitudes are sorted."""

    def select(self, weight: Tensor) -> EdgeSelection:
        return EdgeSelection.from_mask(by_sorting(weight, self.count), self.count)


def make_resnet_step(
    arch: str,
    config: str,
    batch_size: int,
    image_size: int,
    device: torch.device = CPU,
    amp: str | None = None,
    captured: bool = False,
    plain: bool = False,
) -> Step:
    """Forward, backward and optimizer step of one batch, as in main.py.

    `plain`: every layer sorts all its magnitudes in each forward pass.
    """
    torch.manual_seed(0)
    options = parse_options(["--data-backend", "synthetic", "--arch", arch, "--model-config", config])
    network = build_model(options.config).to(device).train()
    if device.type == "cuda":
        use_channels_last(network)
    for rule in Wiring(network).rules.values() if plain else ():
        assert isinstance(rule, RankedEdges)
        rule._selector = SortingSelector(rule.num_edges)
    optimizer = sgd(without_decay_of_norms(network), 1e-4, 0.875, 2**-15, nestorov=False)
    images = torch.randn(batch_size, 3, image_size, image_size).to(device)
    labels = torch.randint(0, 1000, (batch_size,)).to(device)
    precision = Precision(amp, device)
    run = step_on(network, optimizer, images, labels, precision, captured, label_smoothing=0.1)
    return Step(network, run)


def count_weights(network: nn.Module) -> tuple[int, int]:
    """(all weights of the convolutions, those of them in use)."""
    sizes = {name: weight.numel() for name, weight in network.named_parameters() if weight.dim() == 4}
    kept = sizes | {name: int(mask.sum()) for name, mask in Wiring(network).adjacency().items()}
    return sum(sizes.values()), sum(kept.values())


def measure_resnets(options: argparse.Namespace) -> Report:
    steps = {
        config: make_resnet_step(options.arch, config, options.batch_size, options.image_size)
        for config in options.configs
    }
    times = measure({config: step.run for config, step in steps.items()}, options.rounds)
    first = options.configs[0]
    report = Report(
        f"Training step of {options.arch}, batch {options.batch_size}, {options.image_size} px",
        ("configuration", "kept weights", "step", f"this / {first}"),
        notes=[f"rounds: {options.rounds}, medians (low to high)"],
    )
    for config, spread in times.items():
        weights, kept = count_weights(steps[config].network)
        ratio = spread.median / times[first].median
        cells = (config, f"{kept:,} of {weights:,}", str(spread), f"{ratio:.3f}")
        report.add(cells, configuration=config, kept=kept, ratio=ratio, **spread.numbers())
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--configs", nargs="+", default=["dense", "allsparse10", "ignorefirst10"])
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    run(measure_resnets, parser)
