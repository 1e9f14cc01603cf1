"""Removal of dead channels, operation by operation, by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.wirings.channel_cases import (
    EDGES,
    Calls,
    around,
    chain,
    check,
    image,
    left,
    only,
    reasons,
    shift_norms,
)


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
