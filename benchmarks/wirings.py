"""Networks of the benchmarks of inference, by their wirings; and storing the wiring of a training.

    python -m benchmarks.wirings RUN CHECKPOINT [--output benchmarks/trained_x225.npz]

The times of an engine depend on which edges and nodes are live.

trained: the wiring that a training here found; benchmarks/trained_x225.npz holds its edges, without weights.
alive: initial weights, which leave nearly all nodes live.
spread: initial weights, with those of each source multiplied by exp(0.1 z), z standard normal. Three of four
nodes are dead then, many more than in the trained wiring.

The stored wiring is that of `mobilenet_x225_dnw`, seed 0, of `python -m fig.results_long --parts c`: the
MobileNet graph ×0.225 after 30 epochs on the first 10,000 images of Fashion-MNIST.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from genutil.checkpoint import load_weights
from genutil.config import Config, load_config
from genutil.exceptions import UserError
from models import build_model
from wirings.structure import wired_layers

WIRINGS = ("trained", "alive", "spread")
STORED = Path(__file__).with_name("trained_x225.npz")
SPREAD = 0.1


def make_network(app: str, wiring: str, seed: int = 0) -> nn.Module:
    """A network in evaluation mode with one of WIRINGS, whose norms have the statistics of actual maps.

    Raises:
        UserError: the stored wiring has other layers or another number of edges than the experiment.
    """
    torch.manual_seed(seed)
    config = load_config(app)
    model = build_model(config)
    with torch.no_grad():
        if wiring == "trained":
            _set_wiring(model, app)
        if wiring == "spread":
            for layer in wired_layers(model):
                weight = layer.rule.weight
                weight *= torch.exp(SPREAD * torch.randn(1, weight.shape[1], 1, 1))
        _set_statistics(model, config)
    return model.eval()


def _set_wiring(model: nn.Module, app: str) -> None:
    """Make the stored edges those with the largest weights."""
    stored = np.load(STORED)
    for layer in wired_layers(model):
        weight = layer.rule.weight
        if layer.name not in stored or stored[f"{layer.name}.shape"].tolist() != list(weight.shape):
            raise UserError(f"{app}: {STORED.name} holds no wiring of {layer.name} {tuple(weight.shape)}")
        indices = torch.from_numpy(stored[layer.name]).long()
        in_use = int(layer.rule.in_use().sum())
        if len(indices) != in_use:
            raise UserError(f"{app}: {layer.name} has {in_use} edges, {STORED.name} has {len(indices)}")
        others = torch.ones(weight.numel(), dtype=torch.bool)
        others[indices] = False
        weight.view(-1)[others] = 0


def _set_statistics(model: nn.Module, config: Config) -> None:
    """Without them states shrink from layer to layer until only biases matter."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(torch.randn(8, config.in_channels, config.image_size, config.image_size))


def store(run: Path, checkpoint: Path, output: Path) -> str:
    """Write the edges in use at the end of a training. Returns a description.

    Args:
        run: folder of the training, with its settings and results.
        checkpoint: its last checkpoint.
        output: the file.
    """
    model = build_model(load_config(run / "config.yml"))
    load_weights(checkpoint, model)
    results = json.loads((run / "results.json").read_text())
    arrays: dict[str, Any] = {"top1_accuracy": np.array(results["top1_accuracy"])}
    edges = 0
    for layer in wired_layers(model):
        indices = layer.rule.in_use().flatten().nonzero().flatten().int()
        arrays |= {layer.name: indices.numpy(), f"{layer.name}.shape": np.array(layer.rule.weight.shape)}
        edges += len(indices)
    np.savez_compressed(output, **arrays)
    return f"{output}: {edges:,} edges, {output.stat().st_size / 1e6:.1f} MB"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the training")
    parser.add_argument("checkpoint", type=Path, help="its last checkpoint")
    parser.add_argument("--output", type=Path, default=STORED)
    arguments = parser.parse_args()
    print(store(arguments.run, arguments.checkpoint, arguments.output))
