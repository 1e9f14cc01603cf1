"""Removal of dead channels: by hand, against the definition, and in networks of torchvision."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from wirings.channel_flow import ChannelFlow
from wirings.channel_trace import trace
from wirings.channels import ChannelReport, remove_dead_channels
from wirings.errors import WiringError
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


def test_a_zero_constant_and_an_unread_channel_go_and_another_constant_stays_before_padding():
    model = chain(nn.ReLU())
    network, report = check(model, image(), only(model, **EDGES))
    row = report.layers[0]
    assert (row.name, row.before, row.after, row.constant, row.reason) == ("0", 4, 2, 1, "")
    assert (row.macs_before, row.macs_after) == (36 * 36, 2 * 9 * 36)
    assert network.state_dict()["network.2.weight"].shape == (2, 2, 3, 3)
    assert report.layers[1].reason == "its output is the network's output"
    assert report.params_before == 36 + 4 + 72
    assert report.params_after == 18 + 2 + 36


def test_constants_are_part_of_the_bias_without_padding():
    model = chain(nn.ReLU(), padding=0)
    network, report = check(model, image(), only(model, **EDGES))
    assert left(report) == {"0": 1, "2": 2}
    weight = model[2].weight
    assert torch.allclose(network.network.get_parameter("2.bias"), 2.0 * weight[:, 3].sum((1, 2)))


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_padding_with_values_keeps_constants(mode):
    model = chain(nn.ReLU())
    model[2] = nn.Conv2d(4, 2, 3, padding=1, padding_mode=mode).double()
    assert left(check(model, image(), only(model, **EDGES))[1]) == {"0": 1, "2": 2}


@pytest.mark.parametrize(("padding", "expected"), [("same", 2), ("valid", 1)])
def test_padding_by_name(padding, expected):
    model = chain(nn.ReLU(), padding=padding)
    assert left(check(model, image(), only(model, **EDGES))[1]) == {"0": expected, "2": 2}


def test_a_zero_weight_in_use_counts():
    model = chain(nn.ReLU())
    in_use = only(model, **EDGES)
    with torch.no_grad():
        model[2].weight[0, 0] = 0
    assert left(check(model, image(), in_use)[1]) == {"0": 2, "2": 2}


def test_layers_not_named_have_all_edges():
    model = chain(nn.ReLU())
    only(model, **EDGES)
    assert left(check(model, image())[1]) == {"0": 4, "2": 2}


def test_one_channel_stays():
    model = chain(nn.ReLU())
    report = check(model, image(), only(model, **{"0": [], "2": []}))[1]
    assert left(report) == {"0": 1, "2": 2}


MIDDLES = {
    "modules": [
        *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
        *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign),
        *(nn.LogSigmoid, nn.Identity, nn.Dropout, nn.Dropout2d, lambda: nn.ReLU(inplace=True)),
        *(lambda: nn.PReLU(4), lambda: nn.BatchNorm2d(4), lambda: nn.MaxPool2d(2), lambda: nn.AvgPool2d(2)),
        *(lambda: nn.MaxPool2d(3, 1, 1), lambda: nn.AvgPool2d(3, 1, 1), lambda: nn.AdaptiveAvgPool2d(4)),
        *(lambda: nn.AdaptiveMaxPool2d(4), lambda: nn.Upsample(scale_factor=2, mode="bilinear")),
        *(lambda: nn.MaxPool2d(2, 1, 1, dilation=4), lambda: nn.AvgPool2d(2, divisor_override=3)),
        lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4, affine=False), nn.Hardswish()),
    ],
    "functions": [
        *(F.relu, torch.relu, torch.relu_, F.silu, F.hardswish, F.gelu, torch.sigmoid, torch.tanh),
        *(
            lambda x: F.relu(x, inplace=True),
            lambda x: F.leaky_relu(x, 0.1),
            lambda x: F.dropout(x, 0.5, False),
        ),
        *(lambda x: x.relu(), lambda x: x.relu_(), lambda x: x.clamp(-1, 1), lambda x: x.clamp(min=0)),
        *(lambda x: 1 - x, lambda x: x + 0.5, lambda x: 2 * x / 3, lambda x: -x, lambda x: x.add_(1).mul(3)),
        *(lambda x: x * x, lambda x: torch.add(x, x, alpha=2), lambda x: torch.maximum(x, -x)),
        *(lambda x: F.max_pool2d(x, 2), lambda x: F.max_pool2d(x, 3, 1, 1), lambda x: F.avg_pool2d(x, 2)),
        *(lambda x: F.avg_pool2d(x, 3, 1, 1), lambda x: F.avg_pool2d(x, 3, stride=1, padding=1)),
        *(lambda x: F.adaptive_avg_pool2d(x, 4), lambda x: F.interpolate(x, scale_factor=2.0)),
        *(lambda x: F.interpolate(x[:, :, ::2], size=x.shape[2:]), lambda x: x.contiguous().clone()),
        *(lambda x: x * x.sigmoid().mean((2, 3), keepdim=True), lambda x: x - x.mean(dim=-1, keepdim=True)),
        *(lambda x: x + torch.mean(x, [2, 3], True), lambda x: x * torch.amax(x, (2, 3), keepdim=True)),
        *(lambda x: F.pad(x, (1, 1)), lambda x: F.pad(x, (0, 1), value=2.0)),
        lambda x: x.mean((2, 3))[:, :, None, None].expand_as(x),
    ],
    "unknown functions": [
        *(lambda x: torch.flatten(x, 2).unsqueeze(3).view(x.shape[0], 4, 6, 6), lambda x: x.flip(1)),
        *(lambda x: torch.cat([x, x], 1)[:, :4], lambda x: x.softmax(1), lambda x: x.permute(0, 1, 3, 2)),
        *(lambda x: x.sort(dim=1)[0], lambda x: x / (1 + x * x), lambda x: x[:, [1, 0, 3, 2]]),
        *(lambda x: x.view(x.size(0), 2, 2, 6, 6).transpose(1, 2).flatten(1, 2), lambda x: x * x.numel()),
        *(lambda x: x * x.size(1), lambda x: x * x.shape[1]),
        *(
            lambda x: x.mean(1, keepdim=True) * x,
            lambda x: x + x.sum(),
            lambda x: torch.where(x > 0, x, x * 0),
        ),
        *(
            lambda x: F.instance_norm(x),
            lambda x: x.view(torch.int64).view(torch.float64),
            lambda x: F.normalize(x),
        ),
        *(lambda x: F.pad(x, (0, 0, 0, 0, 1, 0))[:, 1:], lambda x: x.transpose(0, 1).transpose(0, 1)),
    ],
}


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("number", range(len(MIDDLES["modules"])))
def test_modules_between_convolutions(number, padding):
    middle = MIDDLES["modules"][number]()
    for seed in range(3):
        torch.manual_seed(seed)
        model = chain(middle, padding, tuple(torch.randn(4).tolist()))
        shift_norms(model, seed)
        report = check(model, image(), only(model, **EDGES))[1]
        assert report.layers[0].after <= 3  # the unread channel goes
        assert not report.layers[0].reason


def around(middle: Callable[[Tensor], Tensor], padding: int) -> Calls:
    first, last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=padding)
    return Calls(lambda net, x: net.last(middle(net.first(x))), first=first, last=last).double()


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("number", range(len(MIDDLES["functions"])))
def test_functions_between_convolutions(number, padding):
    for seed in range(3):
        torch.manual_seed(seed)
        model = around(MIDDLES["functions"][number], padding)
        report = check(model, image(), only(model, first=EDGES["0"], last=EDGES["2"]))[1]
        assert report.layers[0].after <= 3  # the unread channel goes
        assert not report.layers[0].reason


@pytest.mark.parametrize("number", range(len(MIDDLES["unknown functions"])))
def test_channels_stay_around_unknown_functions(number):
    model = around(MIDDLES["unknown functions"][number], 1)
    report = check(model, image(), only(model, first=EDGES["0"], last=EDGES["2"]))[1]
    assert left(report) == {"first": 4, "last": 2}
    assert "its output goes through an operation whose channels are not known: " in reasons(report)["first"]


def test_a_constant_is_none_after_an_average_with_padding():
    layers = {"first": nn.Conv2d(1, 2, 1), "last": nn.Conv2d(2, 1, 1)}
    model = Calls(lambda net, x: net.last(F.avg_pool2d(net.first(x), 3, 1, 1)), **layers).double()
    report = check(model, image(), only(model, first=[(0, 0)], last=[(0, 0), (0, 1)]))[1]
    assert left(report) == {"first": 2, "last": 1}


def test_added_channels_are_removed_together():
    """Channel 0 is read from one branch, 1 from the other, 2 from none."""
    layers = {name: nn.Conv2d(1, 3, 3, padding=1, bias=False) for name in ("one", "two")}
    model = Calls(
        lambda net, x: net.last(F.relu(net.one(x) + net.two(x))), **layers, last=nn.Conv2d(3, 1, 3, padding=1)
    ).double()
    in_use = only(model, one=[(0, 0), (2, 0)], two=[(1, 0)], last=[(0, 0), (0, 1)])
    assert left(check(model, image(), in_use)[1]) == {"one": 2, "two": 2, "last": 1}


def test_a_sum_of_constants_that_is_zero_goes():
    layers = {name: nn.Conv2d(1, 2, 3, padding=1) for name in ("one", "two")}
    model = Calls(
        lambda net, x: net.last(net.one(x) + net.two(x)), **layers, last=nn.Conv2d(2, 1, 3, padding=1)
    ).double()
    with torch.no_grad():
        model.two.bias.copy_(-model.one.bias)
    in_use = only(model, one=[(0, 0)], two=[(0, 0)], last=[(0, 0), (0, 1)])
    assert left(check(model, image(), in_use)[1]) == {"one": 1, "two": 1, "last": 1}


def test_a_product_with_zero_needs_no_other_factor():
    """The second channel of `gate` is 0, so that of `deep` does not matter, nor what it alone reads."""
    model = Calls(
        lambda net, x: net.last(net.deep(net.first(x)) * F.relu(net.gate(x.mean((2, 3), keepdim=True)))),
        first=nn.Conv2d(1, 2, 3, padding=1),
        deep=nn.Conv2d(2, 2, 3, padding=1),
        gate=nn.Conv2d(1, 2, 1),
        last=nn.Conv2d(2, 1, 3, padding=1),
    ).double()
    model.gate.bias.data = torch.tensor([0.5, -0.5]).double()
    in_use = only(model, deep=[(0, 0), (1, 1)], gate=[(0, 0)])
    assert left(check(model, image(), in_use)[1]) == {"first": 1, "deep": 1, "gate": 1, "last": 1}


def test_squeeze_and_excitation_with_linear_layers():
    """The published form, which names the number of channels."""

    def forward(net, x):
        x = F.relu(net.first(x))
        batch, channels, _, _ = x.size()
        gate = net.up(F.relu(net.down(F.adaptive_avg_pool2d(x, 1).view(batch, channels))))
        return net.last(x * gate.sigmoid().view(batch, channels, 1, 1).expand_as(x))

    model = Calls(
        forward,
        first=nn.Conv2d(1, 4, 3, padding=1),
        down=nn.Linear(4, 3),
        up=nn.Linear(3, 4),
        last=nn.Conv2d(4, 1, 3, padding=1),
    ).double()
    in_use = only(model, down=[(0, 1), (1, 0)], up=[(0, 0), (2, 1), (3, 2)], last=[(0, 0)])
    assert left(check(model, image(), in_use)[1]) == {"first": 2, "down": 1, "up": 2, "last": 1}


def test_depthwise_convolutions():
    """The filter of channel 1 has no edges, and nothing reads channel 2."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.ReLU6(),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(4), nn.ReLU6(),
        nn.Conv2d(4, 2, 1),
    ).double()  # fmt: skip
    shift_norms(model, 0)
    in_use = only(model, **{"3": [(0, 0), (2, 0), (3, 0)], "6": [(0, 0), (0, 1), (1, 3)]})
    network, report = check(model, image(), in_use)
    assert left(report) == {"0": 2, "3": 2, "6": 2}
    assert network.network.get_submodule("3").groups == 2
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


def test_flattened_channels_are_blocks_of_features():
    """Of the four features of a channel one is read; of channel 1 none."""
    for flatten in (lambda x: x.view(-1, 12), lambda x: torch.flatten(x, 1), lambda x: x.reshape(len(x), -1)):
        model = Calls(
            lambda net, x, flatten=flatten: net.last(F.relu(flatten(F.adaptive_avg_pool2d(net.first(x), 2)))),
            first=nn.Conv2d(1, 3, 3), last=nn.Linear(12, 2),
        ).double()  # fmt: skip
        in_use = only(model, last=[(0, 2), (1, 9)])
        if "len" in flatten.__code__.co_names:
            assert "cannot be traced" in check(model, image(), in_use)[1].reason
            continue
        network, report = check(model, image(), in_use)
        assert left(report) == {"first": 2, "last": 2}
        assert network.state_dict()["network.last.weight"].shape == (2, 8)


def test_concatenated_channels():
    model = Calls(
        lambda net, x: net.last(torch.cat([net.one(x), net.two(x), x], dim=-3)),
        one=nn.Conv2d(1, 3, 1), two=nn.Conv2d(1, 2, 1), last=nn.Conv2d(6, 1, 3),
    ).double()  # fmt: skip
    in_use = only(model, last=[(0, 0), (0, 2), (0, 3)])
    network, report = check(model, image(), in_use)
    assert left(report) == {"one": 2, "two": 1, "last": 1}
    assert network.state_dict()["network.last.weight"].shape[1] == 4


def test_transposed_convolutions_and_one_dimension():
    model = nn.Sequential(
        nn.ConvTranspose2d(1, 3, 2, stride=2), nn.BatchNorm2d(3), nn.ReLU(), nn.ConvTranspose2d(3, 2, 3)
    ).double()
    shift_norms(model, 0)
    report = check(model, image(), only(model, **{"3": [(0, 0), (0, 1), (2, 0)]}))[1]
    assert left(report) == {"0": 2, "3": 2}
    line = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 1, 3)).double()
    assert left(check(line, torch.randn(2, 2, 9).double(), only(line, **{"3": [(0, 3)]}))[1]) == {
        "0": 1,
        "3": 1,
    }
    box = nn.Sequential(
        nn.Conv3d(1, 2, 2), nn.BatchNorm3d(2), nn.MaxPool3d(2), nn.Flatten(), nn.Linear(16, 2)
    )
    example = torch.randn(2, 1, 5, 5, 5).double()
    assert left(check(box.double(), example, only(box, **{"4": [(0, 1)]}))[1]) == {"0": 1, "4": 2}


def test_norms_that_cannot_be_folded_are_smaller():
    model = Calls(
        lambda net, x: net.last(F.relu(net.norm(net.one(x) + net.two(x)))),
        one=nn.Conv2d(1, 3, 3), two=nn.Conv2d(1, 3, 3), norm=nn.BatchNorm2d(3), last=nn.Conv2d(3, 1, 1),
    ).double()  # fmt: skip
    shift_norms(model, 0)
    network, report = check(model, image(), only(model, last=[(0, 0), (0, 2)]))
    assert left(report) == {"one": 2, "two": 2, "last": 1}
    assert network.network.get_submodule("norm").num_features == 2


def test_linear_layers_with_norms():
    model = nn.Sequential(
        nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3), nn.BatchNorm1d(3, affine=False)
    ).double()
    shift_norms(model, 0)
    report = check(model, torch.randn(4, 5).double(), only(model, **{"3": [(0, 0), (1, 2)]}))[1]
    assert left(report) == {"0": 2, "3": 3}


class DoublingConv(nn.Conv2d):
    """Computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 2)


class RenamedConv(nn.Conv2d):
    """Another name alone."""


def with_layer(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 1), layer, nn.ReLU(), nn.Conv2d(4, 1, 3)).double()


def test_reasons_to_stay():
    last = {"3": [(0, 0)]}
    model = with_layer(nn.Conv2d(4, 4, 3, groups=2))
    row = "its output goes through an operation whose channels are not known: 1 (Conv2d of 2 groups)"
    assert reasons(check(model, image(), only(model, **last))[1]) == {
        "0": row, "1": "it is a convolution of 2 groups", "3": "its output is the network's output",
    }  # fmt: skip
    model = with_layer(DoublingConv(4, 4, 3))
    report = check(model, image(), only(model, **last))[1]
    assert left(report) == {"0": 4, "3": 1}
    assert "not known: torch.conv2d" in reasons(report)["0"]
    model = with_layer(RenamedConv(4, 4, 3))
    assert left(check(model, image(), only(model, **last))[1]) == {"0": 4, "1": 1, "3": 1}
    model = with_layer(nn.Conv2d(4, 4, 3))
    model[1].register_forward_hook(lambda layer, args, result: result * 2)
    row = "its class, its hooks or the shape of its input are not those of a plain layer"
    assert reasons(check(model, image(), only(model, **last))[1])["1"] == row
    model = with_layer(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3)))
    assert reasons(check(model, image(), only(model, **last))[1])["1"] == row
    model = with_layer(nn.GroupNorm(2, 4))
    assert "not known: 1 (GroupNorm)" in reasons(check(model, image(), only(model, **last))[1])["0"]
    model = Calls(lambda net, x: net.conv(x) + x, conv=nn.Conv2d(1, 1, 1)).double()
    assert (
        reasons(check(model, image())[1])["conv"]
        == "its channels belong together with those of the network's input"
    )


def test_layers_called_twice_or_with_shared_weights_stay():
    model = Calls(
        lambda net, x: net.last(F.relu(net.same(F.relu(net.same(net.first(x)))))),
        first=nn.Conv2d(1, 3, 3), same=nn.Conv2d(3, 3, 1), last=nn.Conv2d(3, 1, 1),
    ).double()  # fmt: skip
    report = check(model, image(), only(model, same=[(0, 0)], last=[(0, 0)]))[1]
    assert [layer.after for layer in report.layers] == [3, 3, 3, 1]
    assert report.layers[1].reason == "it is called more than once, or shares a parameter with another layer"
    assert "same (Conv2d, shared)" in report.layers[0].reason
    tied = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1)).double()
    tied[3].weight = tied[1].weight
    report = check(tied, image(), only(tied, **{"1": [(0, 0)]}))[1]
    assert left(report) == {"0": 3, "1": 3, "3": 3}
    assert "shares a parameter" in reasons(report)["1"]
    read = Calls(
        lambda net, x: net.last(F.relu(net.first(x))) + net.first.weight.sum(),
        first=nn.Conv2d(1, 3, 3), last=nn.Conv2d(3, 1, 1),
    ).double()  # fmt: skip
    assert left(check(read, image(), only(read, last=[(0, 0)]))[1]) == {"first": 3, "last": 1}


def test_activations_called_twice_are_no_obstacle():
    relu = nn.ReLU(inplace=True)
    model = nn.Sequential(nn.Conv2d(1, 3, 1), relu, nn.Conv2d(3, 3, 3), relu, nn.Conv2d(3, 1, 1)).double()
    in_use = only(model, **{"2": [(0, 0), (1, 2)], "4": [(0, 0)]})
    assert left(check(model, image(), in_use)[1]) == {"0": 1, "2": 1, "4": 1}


def test_operations_in_place_are_followed():
    """The branch reads the result of the ReLU, which overwrites its input, as in pre-activation networks."""

    def forward(net, x):
        x = net.first(x)
        y = net.one(F.relu_(x))
        return net.last(y + x)

    model = Calls(
        forward, first=nn.Conv2d(1, 3, 1), one=nn.Conv2d(3, 3, 3, padding=1), last=nn.Conv2d(3, 1, 3)
    ).double()
    model.first.bias.data = torch.tensor([0.1, -1.0, 0.3]).double()
    model.one.bias.data.zero_()
    in_use = only(model, first=[(0, 0)], one=[(0, 0)], last=[(0, 0), (0, 1)])
    assert left(check(model, image(), in_use)[1]) == {"first": 1, "one": 1, "last": 1}


def test_views_that_are_overwritten():
    def forward(net, x):
        x = net.first(x)
        y = F.relu_(x.view(x.size(0), -1))
        return net.last(x).flatten(1) + y.mean()

    model = Calls(forward, first=nn.Conv2d(1, 3, 1), last=nn.Conv2d(3, 1, 3)).double()
    report = check(model, image(), only(model, last=[(0, 0)]))[1]
    assert report.reason == "relu_ overwrites first, which is read again"
    assert str(report) == f"No channels were removed: {report.reason}."
    model = Calls(
        lambda net, x: net.last(torch.mul(net.first(x), 2, out=net.maps)),
        first=nn.Conv2d(1, 3, 1),
        last=nn.Conv2d(3, 1, 3),
    ).double()
    model.register_buffer("maps", torch.zeros(2, 3, 6, 6).double())
    assert remove_dead_channels(model, image())[1].reason == "mul overwrites maps"


def test_networks_that_change_when_they_run():
    model = Calls(lambda net, x: net.conv(x) + net.calls.add_(1), conv=nn.Conv2d(1, 2, 1)).double()
    model.register_buffer("calls", torch.zeros(1).double())
    network, report = remove_dead_channels(model, image())
    assert report.reason == "the network, once traced, computes something else than before"
    assert model.calls == 0
    assert torch.equal(network(image()), model(image()))


def test_sizes_that_are_read():
    """Numbers of channels are those of the network; other sizes are those of the input."""

    def forward(net, x):
        x = net.first(x).relu()
        share = x.shape[1] / 2 + x.size(1) - x.size(dim=-3)
        x = net.second(x)
        tokens = x.flatten(2).transpose(1, 2)
        return net.last(tokens.sum(1) / tokens.size(1)) * share

    model = Calls(forward, first=nn.Conv2d(1, 4, 3), second=nn.Conv2d(4, 2, 1), last=nn.Linear(2, 1)).double()
    network, report = check(model, image(), only(model, second=[(0, 1)]))
    assert left(report) == {"first": 1, "second": 2, "last": 1}
    with torch.no_grad():
        torch.testing.assert_close(network(image(size=9)), model(image(size=9)))


def test_networks_that_cannot_be_traced():
    model = Calls(
        lambda net, x: net.last(x if x.sum() > 0 else -x), first=nn.Conv2d(1, 3, 1), last=nn.Conv2d(1, 2, 3)
    ).double()
    network, report = check(model, image())
    assert report.layers == ()
    assert report.params_after == report.params_before
    assert report.reason.startswith("the network cannot be traced: symbolically traced variables")
    with pytest.raises(WiringError, match="for evaluation only; train the network it was made from"):
        network.train()


def test_numbers_drawn_while_tracing_are_noticed():
    model = Calls(lambda net, x: net.conv(x) + torch.randn(1), conv=nn.Conv2d(1, 2, 1)).double()
    report = remove_dead_channels(model, image())[1]
    assert report.reason == "the network, once traced, computes something else than before"


def test_other_arguments_have_their_defaults():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 1, 1)

        def forward(self, x, mask=None, features=False):
            x = self.conv(x)
            x = x if mask is None else x * mask
            return x if features else {"out": self.last(x)}

    model = Network().double()
    assert left(check(model, image(), only(model, last=[(0, 0)]))[1]) == {"conv": 1, "last": 1}


def test_a_single_layer_is_a_network():
    layer = nn.Conv2d(1, 2, 3).double()
    in_use = {"weight": torch.ones_like(layer.weight, dtype=torch.bool)}
    assert [row.after for row in check(layer, image(), in_use)[1].layers] == [2]


def test_the_model_is_as_before():
    model = torchvision.models.resnet18(num_classes=3)
    in_use = select(model, 0.1, 0)
    model.layer1.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    gradients = [parameter.requires_grad for parameter in model.parameters()]
    example = torch.randn(2, 3, 32, 32)
    copied, state = example.clone(), torch.get_rng_state()
    network, _ = remove_dead_channels(model, example, in_use)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(example, copied)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == gradients
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    ours = {value.data_ptr() for value in network.state_dict().values()}
    assert not ours & {value.data_ptr() for value in model.state_dict().values()}
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_copies_and_files():
    model = chain(nn.ReLU())
    network, _ = check(model, image(), only(model, **EDGES))
    buffer = io.BytesIO()
    torch.save(network, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(network), torch.load(buffer, weights_only=False)):
        assert torch.equal(other(image()), network(image()))
        other.load_state_dict(network.state_dict())
        with pytest.raises(WiringError, match="evaluation only"):
            other.train()
        assert other.eval() is other


def test_wrong_requests():
    model = chain(nn.ReLU())
    mask = torch.ones(4, 1, 3, 3, dtype=torch.bool)
    with pytest.raises(
        WiringError,
        match=r"in_use names 0.weigth, which is no weight of the network; did you mean 0.wei",
    ):
        remove_dead_channels(model, image(), {"0.weigth": mask})
    with pytest.raises(
        WiringError, match=r"in_use of 0.weight must be boolean, of shape \(4, 1, 3, 3\); it is .*int"
    ):
        remove_dead_channels(model, image(), {"0.weight": mask.long()})
    with pytest.raises(
        WiringError, match=r"must be boolean, of shape \(4, 1, 3, 3\); it is .*of shape \(1, 4, 3, 3\)"
    ):
        remove_dead_channels(model, image(), {"0.weight": mask.transpose(0, 1)})
    with pytest.raises(
        WiringError, match=r"36 weights of 0.weight are not in use and not zero; set them to zero"
    ):
        remove_dead_channels(model, image(), {"0.weight": ~mask})
    with pytest.raises(
        WiringError, match=r"does not run on an example of shape \(2, 3, 6, 6\): .*expected input"
    ):
        remove_dead_channels(model, image(3))
    with pytest.raises(WiringError, match="example must be one batch of inputs, a tensor; it is a tuple"):
        remove_dead_channels(model, (2, 1, 6, 6))
    generator = nn.Sequential(nn.Conv2d(1, 1, 1))
    generator.lines = (line for line in ())
    with pytest.raises(WiringError, match=r"cannot be copied \(copy.deepcopy\): cannot pickle"):
        remove_dead_channels(generator, image())


class RandomNetwork(nn.Module):
    """Blocks of many kinds on a few channels.

    Args:
        blocks: their names.
        head: "flatten", "mean" or "map".
        activation: between layers.
        padded: 3×3 convolutions with zero padding; else without, and 1×1 where maps must keep their size.
        bias: biases and shifts of norms.
    """

    def __init__(
        self, blocks: list[str], head: str, activation: Callable[[Tensor], Tensor], padded: bool, bias: bool
    ):
        super().__init__()
        self.blocks, self.head, self.activation = blocks, head, activation
        self.layers = nn.ModuleDict()
        width = 4

        def conv(name: str, inputs: int, outputs: int, same: bool = False, groups: int = 1) -> None:
            size = 3 if padded or not same else 1
            layer = nn.Conv2d(inputs, outputs, size, padding=size // 2 * padded, groups=groups, bias=bias)
            self.layers[name] = layer
            self.layers[f"{name} norm"] = nn.BatchNorm2d(outputs)

        conv("stem", 2, width)
        for number, block in enumerate(blocks):
            if block == "plain":
                conv(f"{number}", width, width + 1)
                width += 1
            elif block in ("residual", "gate"):
                conv(f"{number} one", width, 3, same=True)
                conv(f"{number} two", 3, width, same=True)
            elif block == "depthwise":
                conv(f"{number} one", width, 5)
                conv(f"{number} two", 5, 5, groups=5)
                conv(f"{number} three", 5, width, same=True)
            elif block == "cat":
                conv(f"{number}", width, 2, same=True)
                width += 2
            elif block == "norm":
                self.layers[f"{number} norm"] = nn.BatchNorm2d(width)
        self.layers["last"] = (
            nn.Conv2d(width, 2, 1, bias=bias)
            if head == "map"
            else nn.Linear(width * (4 if head == "flatten" else 1), 2, bias=bias)
        )

    def run(self, name: str, x: Tensor) -> Tensor:
        return self.layers[f"{name} norm"](self.layers[name](x))

    def forward(self, x: Tensor) -> Tensor:
        act = self.activation
        x = act(self.run("stem", x))
        for number, block in enumerate(self.blocks):
            if block == "plain":
                x = act(self.run(f"{number}", x))
            elif block == "residual":
                x = act(x + self.run(f"{number} two", act(self.run(f"{number} one", x))))
            elif block == "gate":
                pooled = F.adaptive_avg_pool2d(x, 3)
                gate = self.run(f"{number} two", act(self.run(f"{number} one", pooled)))
                x = x * gate.mean((2, 3), keepdim=True).sigmoid()
            elif block == "depthwise":
                x = act(self.run(f"{number} two", act(self.run(f"{number} one", x))))
                x = self.run(f"{number} three", x)
            elif block == "cat":
                x = torch.cat([x, act(self.run(f"{number}", x))], 1)
            elif block == "norm":
                x = act(self.layers[f"{number} norm"](x))
            else:
                x = F.max_pool2d(x, 3, 1, 1)
        if self.head != "map":
            x = F.adaptive_avg_pool2d(x, 2 if self.head == "flatten" else 1).flatten(1)
        return self.layers["last"](x)


BLOCKS = st.lists(
    st.sampled_from(["plain", "residual", "gate", "depthwise", "cat", "norm", "pool"]), min_size=1, max_size=4
)
HEADS = st.sampled_from(["flatten", "mean", "map"])


def whole_kernels(model: nn.Module, density: float, seed: int) -> dict[str, Tensor]:
    """Edges in use of which a kernel has all or none: the position in the middle is never in the padding."""
    in_use = select(model, density, seed)
    for name, used in in_use.items():
        weight = model.get_parameter(name).data
        pairs = torch.rand(used.shape[:2], generator=torch.Generator().manual_seed(seed + 1)) < density
        used[:] = pairs.reshape(*pairs.shape, *(1,) * (used.dim() - 2))
        scale = max(1, used[0].numel() * density) ** 0.5
        weight.copy_(torch.randn(weight.shape, dtype=weight.dtype) / scale * used)
    return in_use


class _Changed(fx.Interpreter):
    """Runs a graph with a random change of some channels of one node, and notes all values."""

    def __init__(
        self, module: fx.GraphModule, node: fx.Node | None = None, channels: Tensor | None = None
    ) -> None:
        super().__init__(module)
        self.changed, self.which = node, channels
        self.values: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> Tensor:
        result = super().run_node(n)
        if n is self.changed:
            result = result.clone()
            result[:, self.which] += torch.randn(result[:, self.which].shape, dtype=result.dtype)
        self.values[n] = result
        return result


def matters(flow: ChannelFlow, example: Tensor) -> Tensor:
    """A group matters if one of its channels varies, and if a change of it there changes the output."""
    module = flow.traced.module
    plain = _Changed(module)
    output = plain.run(example)
    important = torch.zeros(len(flow.groups), dtype=torch.bool)
    for node, channels in flow.channels.items():
        values = plain.values[node].transpose(0, 1).flatten(1)
        varies = (values.amax(1) - values.amin(1)) > 1e-9
        groups = flow.groups[channels.numbers]
        for group in groups.unique():
            which = (groups == group) & varies
            if which.any() and not important[group]:
                important[group] = not torch.equal(_Changed(module, node, which).run(example), output)
        if node.op == "placeholder" or any(user.op == "output" for user in node.users):
            important[groups] = True
    return important


@settings(max_examples=30, deadline=None)
@given(BLOCKS, HEADS, st.floats(0.1, 0.7), st.integers(0, 10**6), st.booleans())
def test_what_is_removed_does_not_matter_and_what_stays_does(blocks, head, density, seed, padded):
    """With padding without biases, where all constants are 0; without padding with biases.

    The activation is 0 at 0 and has no flat part, so that what varies before it varies after it.
    """
    torch.manual_seed(seed)
    model = RandomNetwork(blocks, head, nn.LeakyReLU(0.3), padded, bias=not padded).double().eval()
    in_use = whole_kernels(model, density, seed)
    if not padded:
        shift_norms(model, seed)
    example = torch.randn(4, 2, 21, 21, dtype=torch.float64)
    check(model, example, in_use)
    masks = {name.removesuffix(".weight"): used for name, used in in_use.items()}
    with torch.no_grad():
        flow = ChannelFlow(trace(copy.deepcopy(model), example), masks)
        assert torch.equal(
            flow.groups[flow.find_needed().nonzero().flatten()].unique(),
            matters(flow, example).nonzero().flatten(),
        )


@settings(max_examples=40, deadline=None)
@given(BLOCKS, HEADS, st.floats(0, 0.7), st.integers(0, 10**6), st.booleans(), st.booleans())
def test_the_output_is_that_of_the_masked_network(blocks, head, density, seed, padded, single):
    torch.manual_seed(seed)
    activation = [F.relu, F.relu6, F.hardswish, F.leaky_relu][seed % 4]
    model = RandomNetwork(blocks, head, activation, padded, bias=True)
    model = model if single else model.double()
    in_use = select(model, density, seed)
    shift_norms(model, seed)
    example = torch.randn(2, 2, 21, 21, dtype=torch.float32 if single else torch.float64)
    check(model, example, in_use)


@pytest.mark.parametrize("magnitude", [False, True])
def test_resnet18(magnitude):
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None)
    in_use = select(model, 0.02, 0, magnitude)
    network, report = check(model, torch.randn(2, 3, 64, 64), in_use)
    assert len(report.layers) == 21
    assert not any(layer.reason for layer in report.layers[:-1])
    assert report.macs_before == 148_557_824
    with torch.no_grad():
        larger = torch.randn(1, 3, 96, 96)
        torch.testing.assert_close(network(larger), model.eval()(larger), rtol=1e-5, atol=1e-5)


def test_resnet18_with_few_edges_as_after_training():
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None)
    shift_norms(model, 0)
    report = check(model, torch.randn(2, 3, 64, 64), select(model, 0.001, 0))[1]
    assert left(report)["layer1.0.conv1"] < 32
    assert report.macs_after < 0.6 * report.macs_before
    assert any(layer.constant for layer in report.layers)


def test_vgg11_with_norms_and_a_flat_head():
    torch.manual_seed(0)
    model = torchvision.models.vgg11_bn(weights=None, num_classes=10)
    model.classifier = nn.Sequential(nn.Linear(512 * 49, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 10))
    shift_norms(model, 0)
    in_use = select(model, 0.005, 0)
    network, report = check(model, torch.randn(2, 3, 64, 64), in_use)
    assert not any(layer.reason for layer in report.layers[:-1])
    flat = network.network.get_submodule("classifier.0")
    assert flat.in_features == 49 * left(report)["features.25"] < 512 * 49


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "densenet121"])
def test_networks_of_torchvision(name):
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None, num_classes=10)
    shift_norms(model, 0)
    report = check(model, torch.randn(2, 3, 64, 64), select(model, 0.02, 0))[1]
    assert not any(layer.reason for layer in report.layers[:-1])
    assert report.macs_after < 0.99 * report.macs_before


def test_the_report_is_a_table():
    model = chain(nn.ReLU())
    lines = str(check(model, image(), only(model, **EDGES))[1]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["layer", "channels", "left", "of these constant", "MACs", "left", "why channels stay"]
    assert cells[2] == ["0", "4", "2", "1", "1,296", "648", ""]
    assert cells[4] == ["total", "6", "4", "1", "3,888", "1,944", ""]
    assert len(set(map(len, lines[:5]))) == 1
    assert lines[-1] == "Parameters: 112 before, 56 after."


def test_the_report_of_a_network_without_layers():
    report = check(nn.Sequential(nn.ReLU()), image())[1]
    assert "total" in str(report)
    assert report.macs_before == report.macs_after == 0
