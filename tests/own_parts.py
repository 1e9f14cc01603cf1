"""Parts of a user's own, as experiments in tests name them: a rule with state, a callback, a budget."""

import json

import torch
import torch.nn.functional as F
from torch import nn

from models.graphs.neuralgraph import StaticNeuralGraph
from trainers.callbacks import Callback
from wirings.rules.base import EdgeRule
from wirings.selection import EdgeSelection
from wirings.topk import top_mask


class DropAndGrow(EdgeRule):
    """Every `every` steps: the weakest edges in use are replaced by those of largest gradient."""

    def __init__(self, potential, num_edges, every: int = 2, fraction: float = 0.3):
        super().__init__(potential, num_edges)
        self.every, self.fraction = every, fraction
        self.register_buffer("mask", top_mask(torch.rand_like(self.weight), num_edges))
        self.register_buffer("exchanged", torch.zeros((), dtype=torch.int64))

    def select(self):
        return EdgeSelection.from_mask(self.mask, self.num_edges)

    def after_backward(self, step):
        if step.index % self.every == 0 and step.index <= 0.75 * step.total:
            self.exchange(step)
        self.weight.grad[~self.mask] = 0

    def exchange(self, step):
        count = int(self.fraction * (1 - step.index / step.total) * self.num_edges)
        used = self.weight.detach().masked_fill(~self.mask, torch.inf)
        dropped = top_mask(1 / (1e-12 + used.abs()), count)
        grown = top_mask((self.weight.grad.abs() + 1e-30).masked_fill(self.mask, 0), count)
        self.mask.copy_((self.mask & ~dropped) | grown)
        with torch.no_grad():
            self.weight[grown] = 0
        step.reset_optimizer_state(self.weight, grown)
        self.exchanged += count


class WiredNet(nn.Module):
    """A network that wires itself, but for its first layer."""

    def __init__(self, in_channels: int, output_size: int, image_size: int, wire):
        super().__init__()
        self.image_size = image_size
        self.stem = nn.Conv2d(in_channels, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 16, 3, padding=1, bias=False)
        self.fc = nn.Linear(16, output_size)
        wire(self, exclude=["stem"])

    def forward(self, images):
        maps = F.relu(self.conv(F.relu(self.norm(self.stem(images)))))
        return self.fc(maps.mean((2, 3)))


class GraphWithFrozenNorms(StaticNeuralGraph):
    """A graph whose logits of an image do not depend on the batch: its batch norms are in evaluation mode."""

    def train(self, mode: bool = True):
        super().train(mode)
        self.downsample.eval()
        return self


class Notes(Callback):
    """Writes what it sees to the run's folder."""

    def __init__(self, folder, settings, lr: float):
        self.path, self.lr, self.settings = folder / "notes.jsonl", lr, settings

    def before_optimizer_step(self, trainer):
        gradients = [parameter.grad for parameter in trainer.model.parameters()]
        norm = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
        self._note(event="step", step=trainer.step, total=trainer.total_steps, norm=norm)

    def on_metrics(self, trainer, phase, metrics):
        self._note(event=phase, loss=metrics["CELoss"], lr=self.lr, name=self.settings["name"])

    def _note(self, **values):
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")


class Failing(Callback):
    def on_step(self, trainer):
        raise LookupError("no table")


class Unbuildable(Callback):
    def __init__(self, folder):
        (folder / "table.csv").touch()
        raise LookupError("no table")


class TakesGamma(Callback):
    def __init__(self, exp_decaying_lr_gamma: float):
        self.gamma = exp_decaying_lr_gamma


def halves(shapes, density):
    """All edges of the first layer in use, and none of the others'."""
    first, *others = shapes
    rows, columns, *_ = shapes[first]
    return {first: rows * columns, **dict.fromkeys(others, 0)}


def too_many(shapes, density):
    return dict.fromkeys(shapes, 10**9)
