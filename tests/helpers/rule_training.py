"""A small network whose rules are trained for some steps."""

import torch
import torch.nn.functional as F
from torch import nn

from wirings.rules import RULES

FREE = [name for name in RULES if name not in ("fine_tune", "td", "reg_td", "pwmpr")]
"""Rules that need neither a checkpoint nor an option, nor a graph."""


class Small(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4))


def train(model, wiring, optimizer, steps, total=12):
    for index in steps:
        torch.manual_seed(index)
        images, labels = torch.randn(4, 3, 6, 6), torch.randint(4, (4,))
        weight = next(model.parameters())
        loss = F.cross_entropy(model(images.to(weight)), labels.to(weight.device))
        optimizer.zero_grad()
        loss.backward()
        wiring.after_backward(optimizer, index, total)
        optimizer.step()
        wiring.check_counts()


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
