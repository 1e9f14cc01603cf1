"""A network of one's own that describes its structure."""

import torch
import torch.nn.functional as F
from torch import nn

from wirings.compacting import compact
from wirings.layout import mean_of_relu
from wirings.stages import Group, Stage
from wirings.structure import (
    AcyclicStructure,
    Classifier,
    GraphLayer,
)


class Masked(nn.Module):
    """Weights with a mask: no edge rule, but it has what structures ask for."""

    def __init__(self, targets, sources, density=0.4):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(targets, sources, 1, 1))
        self.register_buffer("mask", torch.rand(targets, sources, 1, 1) < density)

    def forward(self):
        return self.weight * self.mask

    def in_use(self):
        return self.mask


class Block(nn.Module):
    """One stage: `inputs` nodes feed `hidden` nodes, and both feed `outputs` nodes."""

    def __init__(self, inputs, hidden, outputs, stride, norm, density):
        super().__init__()
        self.inputs, self.hidden, self.outputs, self.stride = inputs, hidden, outputs, stride
        self.norms = nn.ModuleList([norm(inputs), norm(hidden)])
        self.filters = nn.Parameter(torch.randn(inputs + hidden, 1, 3, 3) / 3)
        self.edges = Masked(hidden + outputs, inputs + hidden, density)

    def forward(self, maps):
        weight, (first, second) = self.edges(), self.filters.split([self.inputs, self.hidden])
        entering = F.relu(self.norms[0](maps))
        entering = F.conv2d(entering, first, stride=self.stride, padding=1, groups=self.inputs)
        states = F.conv2d(entering, weight[: self.hidden, : self.inputs])
        sent = F.conv2d(F.relu(self.norms[1](states)), second, padding=1, groups=self.hidden)
        return F.conv2d(torch.cat([entering, sent], 1), weight[self.hidden :])

    def stage(self, name):
        middle, end = self.inputs, self.inputs + self.hidden
        groups = (
            Group(slice(0, middle), None, self.norms[0], self.filters[:middle], self.stride),
            Group(slice(middle, end), slice(0, self.hidden), self.norms[1], self.filters[middle:]),
        )
        return Stage(f"{name}.edges", self.edges, groups, slice(self.hidden, self.hidden + self.outputs))


def stem(kind, nodes):
    if kind == "modules":
        return nn.Sequential(nn.Conv2d(3, nodes, 5, stride=2, padding=2), nn.Hardswish())
    return nn.Conv2d(3, nodes, 3, stride=2, padding=1, bias=kind == "bias")


class Own(nn.Module):
    """Two stages. No subclass of WiredNetwork."""

    def __init__(self, stem_kind="bias", norm=nn.BatchNorm2d, stride=2, wired=False, density=0.4):
        super().__init__()
        self.stem = stem(stem_kind, 6)
        self.first, self.second = Block(6, 8, 7, 1, norm, density), Block(7, 5, 9, stride, norm, density)
        self.norm = norm(9)
        self.head = Masked(4, 9) if wired else nn.Linear(9, 4)

    def forward(self, images):
        maps = self.norm(self.second(self.first(self.stem(images))))
        features = F.relu(maps).mean((2, 3))
        return F.linear(features, self.head().flatten(1)) if self.is_wired else self.head(features)

    @property
    def is_wired(self):
        return isinstance(self.head, Masked)

    def wired_layers(self):
        return [
            GraphLayer("first.edges", self.first.edges, 8),
            GraphLayer("second.edges", self.second.edges, 4),
        ]

    def structure(self):
        listed = [self.first.stage("first"), self.second.stage("second")]
        head = Classifier(self.head) if self.is_wired else Classifier(self.head.weight, self.head.bias)
        return AcyclicStructure(self.stem, listed, self.norm, mean_of_relu, head)


def network(seed=0, kind=Own, **keys):
    """A network with norms as after a training."""
    torch.manual_seed(seed)
    model = kind(**keys)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d)) and module.weight is not None:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
        if getattr(module, "running_var", None) is not None:
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def assert_same_logits(model, engine, images=None):
    images = torch.randn(3, 3, 17, 14) if images is None else images
    small = compact(model, engine)
    with torch.no_grad():
        plain, found = model(images), small(images)
    assert found.shape == plain.shape
    assert (found - plain).abs().max() <= 1e-4 * plain.abs().max().clamp(min=1e-6)
    return small
