"""Wired convolutions: exact small cases, and the straight-through gradient."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import wirings
from benchmarks.baseline import by_sorting
from wirings.topk import num_kept


def wired(prune_rate, rule="dnw", **sizes):
    torch.manual_seed(0)
    settings = {"in_channels": 3, "out_channels": 4, "kernel_size": 3, "padding": 1, "stride": 2, **sizes}
    model = nn.Sequential(nn.Conv2d(**settings, bias=False))
    count = num_kept(model[0].weight.numel(), prune_rate)
    options = {"prune_rate": prune_rate, "rho": prune_rate} if rule == "td" else {}
    wirings.wire(model, rule, budget=lambda shapes, _: {"0.weight": count}, **options)
    return model[0]


def test_a_filter_by_hand():
    """The two strongest of four weights; the gradient of all four is that of a convolution with them."""
    layer = wired(0.5, in_channels=4, out_channels=1, kernel_size=1, padding=0, stride=1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, -3.0, 2.0, 0.5]).view(1, 4, 1, 1))
    maps = torch.tensor([1.0, 10.0, 100.0, 1000.0]).view(1, 4, 1, 1).requires_grad_()
    out = layer(maps)
    assert out.item() == -3 * 10 + 2 * 100
    out.backward()
    assert layer.weight.grad.flatten().tolist() == [1, 10, 100, 1000]
    assert maps.grad.flatten().tolist() == [0, -3, 2, 0]


@pytest.mark.parametrize("prune_rate", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("groups", [1, 3])
def test_it_is_the_convolution_by_the_strongest_weights(prune_rate, groups):
    layer = wired(prune_rate, in_channels=6, out_channels=9, groups=groups).double()
    count = layer.weight.numel() - int(prune_rate * layer.weight.numel())
    weight = (layer.weight * by_sorting(layer.weight, count)).detach().requires_grad_()
    maps = torch.randn(2, 6, 7, 7, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(maps, weight, stride=2, padding=1, groups=groups)
    found = layer(maps)
    torch.testing.assert_close(found, expected)
    assert int(layer.wiring.in_use().sum()) == count
    slope = torch.randn_like(expected)
    of_maps, of_weight = torch.autograd.grad(expected, (maps, weight), slope)
    found.backward(slope)
    torch.testing.assert_close(layer.weight.grad, of_weight)  # not masked: all weights get theirs
    torch.testing.assert_close(maps.grad, of_maps)


def test_an_unused_weight_comes_back():
    layer = wired(0.5)
    weak = ~layer.wiring.in_use()
    with torch.no_grad():
        layer.weight[weak] += 100
    assert layer.wiring.in_use()[weak].all()
    layer.eval()
    assert torch.equal(layer.wiring.in_use(), weak)
    with torch.no_grad():
        layer.weight[weak] = 0
    assert torch.equal(layer.wiring.in_use(), ~weak)


def test_a_layer_shows_its_edges():
    layer = wired(0.9)
    assert repr(layer).startswith("WiredConv2d(\n  3, 4, kernel_size=(3, 3)")
    assert "(wiring): TopEdges(11 of 108 edges)" in repr(layer)
    assert repr(copy.deepcopy(layer)) == repr(layer)


def test_targeted_dropout_drops_weak_weights_in_training_and_all_of_them_in_evaluation():
    layer = wired(0.8, "td", in_channels=50, out_channels=40)
    strong = layer.wiring.in_use()
    drawn = torch.stack([layer.wiring() != 0 for _ in range(20)])
    assert drawn[:, strong].all()
    assert drawn[:, ~strong].float().mean() == pytest.approx(0.2, abs=0.01)
    assert not torch.equal(drawn[0], drawn[1])
    used = layer.wiring()
    used.sum().backward()
    assert torch.equal(layer.weight.grad, (used != 0).float())  # dropped ones get none
    layer.eval()
    assert torch.equal(layer.wiring(), layer.weight * strong)


@pytest.mark.parametrize("rule", ["dnw", "td"])
@pytest.mark.parametrize("padding", [1, "same"])
def test_unwired_is_what_evaluation_gives(rule, padding):
    layer = wired(0.7, rule, padding=padding, stride=1)
    maps = torch.randn(2, 3, 9, 9)
    model = nn.Sequential(layer)
    expected = copy.deepcopy(model).eval()(maps)
    plain = wirings.unwire(model)[0]
    assert type(plain) is nn.Conv2d
    assert plain.training
    assert torch.equal(plain(maps), expected)
