"""A small convolutional network to wire."""

import copy

import torch
from torch import nn

from wirings.budgets import uniform
from wirings.topk import top_mask


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5),
    )  # fmt: skip


IMAGES = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))


LAYERS = ["0.weight", "3.weight", "6.weight"]


def masked_by_hand(model, density):
    """A copy of an unwired network with all but its strongest weights set to zero, layer by layer."""
    twin = copy.deepcopy(model)
    wired = {name: uniform(shapes(model), density)[name] for name in LAYERS}
    with torch.no_grad():
        for name, count in wired.items():
            weight = twin.get_parameter(name)
            weight.mul_(top_mask(weight, count))
    return twin


def shapes(model):
    return {name: model.get_parameter(name).shape for name in LAYERS}
