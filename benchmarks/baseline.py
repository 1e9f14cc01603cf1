"""The plain definition of every network, the baseline of benchmarks and tests.

All magnitudes are sorted in every forward pass, each group's product is computed and added separately, and a
graph in continuous time selects its edges at every evaluation of its dynamics, as the published code did.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchdiffeq import odeint

from genutil.config import Config
from models import build_model
from models.graphs.edges import EdgeRule
from models.graphs.mobilenetv1like import MobileNetV1Like, WiredClassifier, WiredStage
from models.graphs.neuralgraph import (
    ContinuousTimeNeuralGraph,
    DiscreteTimeNeuralGraph,
    StaticNeuralGraph,
)
from models.graphs.topk import straight_through


def by_sorting(weight: Tensor, count: int) -> Tensor:
    """Boolean mask of the `count` largest magnitudes, by sorting all of them."""
    flat = weight.detach().abs().flatten()
    order = flat.sort().indices
    mask = torch.zeros_like(flat, dtype=torch.bool)
    mask[order[flat.numel() - count :]] = True
    return mask.view_as(weight)


def sorted_top_edges(rule: EdgeRule) -> Tensor:
    """The strongest edges of a `dnw` rule, by sorting all magnitudes; all edges of any other rule."""
    count = getattr(rule, "num_edges", rule.weight.numel())
    return straight_through(rule.weight, by_sorting(rule.weight, count))


class Baseline(nn.Module):
    """A network that runs by its plain definition, with the parameters of `network`.

    Args:
        network: a tiny classifier or a MobileNetV1Like whose rule is `dnw`.

    Raises:
        ValueError: a network of another kind.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        if type(network) not in _FORWARD:
            raise ValueError(f"there is no baseline for {type(network).__name__}")
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = _FORWARD[type(self.network)](self.network, images)
        return logits


def build_baseline(config: Config) -> Baseline:
    """The plain definition of an experiment's network."""
    return Baseline(build_model(config))


def _static(network: StaticNeuralGraph, images: Tensor) -> Tensor:
    weight = sorted_top_edges(network.graph)
    states = network.start(images)
    outputs = network.dim - network.feature_dim
    for norm, (start, end) in zip(network.norm, network.groups, strict=True):
        filters = network.conv.weight[start:end]
        sources = F.relu(norm(states[:, : end - start]))
        sources = F.conv2d(sources, filters, padding=1, groups=end - start)
        messages = F.conv2d(sources, weight[min(end, outputs) :, start:end])
        states = states[:, -messages.shape[1] :] + messages
    return network.classify(states)


def _discrete(network: DiscreteTimeNeuralGraph, images: Tensor) -> Tensor:
    states = network.start(images)
    for _ in range(network.layers):
        weight = sorted_top_edges(network.graph)
        states = network.norm(F.conv2d(network.conv(F.relu(states)), weight))
    return network.classify(states)


def _continuous(network: ContinuousTimeNeuralGraph, images: Tensor) -> Tensor:
    dynamics = network.odesolve.odefunc

    def derivative(_time: Tensor, states: Tensor) -> Tensor:
        weight = sorted_top_edges(dynamics.graph)
        return dynamics.norm(F.conv2d(dynamics.conv(F.relu(states)), weight))  # type: ignore[no-any-return]

    states = network.start(images)
    times = torch.tensor([0.0, 1.0], dtype=states.dtype, device=states.device)
    return network.classify(odeint(derivative, states, times, rtol=1e-3, atol=1e-3)[-1])


def _stage(stage: WiredStage, states: Tensor) -> Tensor:
    weight, width = sorted_top_edges(stage.graph), stage.outputs
    states = F.conv2d(stage.downsample(F.relu(stage.norm[0](states))), weight[:, : stage.inputs])
    for group in range(1, stage.depth):
        start = stage.inputs + (group - 1) * width
        filters = stage.conv.weight[(group - 1) * width : group * width]
        sources = F.relu(stage.norm[group](states[:, :width]))
        sources = F.conv2d(sources, filters, padding=1, groups=width)
        messages = F.conv2d(sources, weight[group * width :, start : start + width])
        states = states[:, width:] + messages
    return states


def _mobilenet(network: MobileNetV1Like, images: Tensor) -> Tensor:
    states = network.conv1(images)
    for stage in network.layers:
        assert isinstance(stage, WiredStage)
        states = _stage(stage, states)
    features = F.relu(network.bn(states)).mean((2, 3))
    if isinstance(network.linear, WiredClassifier):
        return F.linear(features, sorted_top_edges(network.linear.graph).flatten(1))
    return network.linear(features)  # type: ignore[no-any-return]


_FORWARD: dict[type[nn.Module], Any] = {
    StaticNeuralGraph: _static,
    DiscreteTimeNeuralGraph: _discrete,
    ContinuousTimeNeuralGraph: _continuous,
    MobileNetV1Like: _mobilenet,
}
