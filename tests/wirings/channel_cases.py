"""Networks with sparse weights, and the comparison of what is left with the whole network."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from wirings.channel_report import ChannelReport
from wirings.channels import remove_dead_channels
from wirings.wrappers import EvaluationNetwork

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)


class Calls(nn.Module):
    """A network of some layers and a function of these and the input."""

    def __init__(self, forward: Callable[..., object], **layers: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> object:
        return self.function(self, x)


def select(model: nn.Module, density: float, seed: int, magnitude: bool = False) -> dict[str, Tensor]:
    """Zero all weights but some in each layer, and say which these are."""
    generator = torch.Generator().manual_seed(seed)
    in_use = {}
    for name, layer in model.named_modules():
        if isinstance(layer, LAYERS):
            weight = layer.weight.data
            scores = weight.abs() if magnitude else torch.rand(weight.shape, generator=generator)
            used = torch.zeros(weight.numel(), dtype=torch.bool)
            used[scores.flatten().topk(int(density * weight.numel())).indices] = True
            in_use[f"{name}.weight"] = used.view_as(weight)
            weight *= in_use[f"{name}.weight"]
    return in_use


def only(model: nn.Module, **edges: list[tuple[int, ...]]) -> dict[str, Tensor]:
    """Edges in use by (target, source) of some layers, with all positions of a kernel; the rest is 0."""
    in_use = {}
    for name, pairs in edges.items():
        weight = model.get_submodule(name).weight.data
        used = torch.zeros_like(weight, dtype=torch.bool)
        for pair in pairs:
            used[pair] = True
        in_use[f"{name}.weight"] = used
        weight *= used
    return in_use


def shift_norms(model: nn.Module, seed: int) -> None:
    """Batch norms as after a training."""
    generator = torch.Generator().manual_seed(seed)
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.running_mean.copy_(0.5 * torch.randn(norm.num_features, generator=generator))
            norm.running_var.copy_(0.5 + torch.rand(norm.num_features, generator=generator))
            if norm.affine:
                nn.init.normal_(norm.bias, 0, 0.5, generator=generator)
                nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)


def check(
    model: nn.Module, example: Tensor, in_use: dict[str, Tensor] | None = None, tolerance: float | None = None
) -> tuple[EvaluationNetwork, ChannelReport]:
    """The smaller network, which must have the same output, also for other inputs and another batch size."""
    network, report = remove_dead_channels(model, example, in_use)
    if tolerance is None:
        tolerance = 1e-10 if example.dtype == torch.float64 else 1e-5
    reference = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(1)
    for batch in (len(example), 3):
        other = torch.randn(batch, *example.shape[1:], generator=generator, dtype=example.dtype)
        with torch.no_grad():
            torch.testing.assert_close(
                network(other.clone()), reference(other.clone()), rtol=tolerance, atol=tolerance
            )
    assert report.params_after == sum(parameter.numel() for parameter in network.parameters())
    return network, report


def left(report: ChannelReport) -> dict[str, int]:
    return {layer.name: layer.after for layer in report.layers}


def reasons(report: ChannelReport) -> dict[str, str]:
    return {layer.name: layer.reason for layer in report.layers}


def image(channels: int = 1, size: int = 6, batch: int = 2) -> Tensor:
    return torch.randn(
        batch, channels, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )


def chain(
    middle: nn.Module, padding: int = 1, bias: tuple[float, ...] = (0.5, -1.0, 0.3, 2.0)
) -> nn.Sequential:
    """Four channels between two convolutions: 0 is live, 1 and 3 are constants, 2 is not read (see EDGES)."""
    first, last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=padding, bias=False)
    first.bias.data = torch.tensor(bias)
    return nn.Sequential(first, middle, last).double()


EDGES = {"0": [(0, 0), (2, 0)], "2": [(0, 0), (0, 1), (0, 3), (1, 3)]}


def around(middle: Callable[[Tensor], Tensor], padding: int) -> Calls:
    first, last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=padding)
    return Calls(lambda net, x: net.last(middle(net.first(x))), first=first, last=last).double()


def with_layer(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 1), layer, nn.ReLU(), nn.Conv2d(4, 1, 3)).double()
