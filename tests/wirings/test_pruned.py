"""Networks with zeros: the other weights are the edges in use, and profiles count them alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from wirings.errors import WiringError
from wirings.layers import WiredLayer
from wirings.profiling import profile
from wirings.pruned import wire_nonzero
from wirings.structure import WiredNetwork
from wirings.wiring import unwire, wire


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 4, 5))


def test_only_layers_with_zeros_are_wired_and_logits_stay():
    model, images = network(), torch.randn(2, 3, 8, 6)
    model[3].weight.data[:, ::2] = 0
    before = copy.deepcopy(model)
    wiring = wire_nonzero(model)
    assert [layer.name for layer in wiring.summary().layers] == ["3.weight"]
    assert wiring.summary().total.in_use == 5 * 48
    assert torch.equal(model(images), before(images))
    assert profile(model, (8, 6)).params == 4 * 28 + 5 * 48 + 5
    for name, value in unwire(model).state_dict().items():
        assert torch.equal(value, before.state_dict()[name])


def test_nothing_to_wire():
    model = network()
    assert not wire_nonzero(model).rules
    assert not any(isinstance(module, WiredLayer) for module in model.modules())
    single = nn.Linear(3, 2)
    single.weight.data[0] = 0
    assert not wire_nonzero(single).rules


def test_layers_that_cannot_be_wired_stay_as_they_are():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    for layer in model:
        layer.weight.data[0] = 0
    model[1].weight = model[0].weight
    parametrizations.spectral_norm(model[2])
    wire(model, density=0.5, include="3")
    wiring = wire_nonzero(model)
    assert list(wiring.rules) == ["3.weight", "4.weight"]
    assert wiring.summary().layers[0].in_use == 8
    assert wiring.summary().layers[1].in_use == 12


class Square(WiredNetwork):
    def complexity(self, image_size: int | None = None):
        return []


def test_profiles_of_images_that_are_no_squares():
    assert profile(network(), (8, 6)).macs == 4 * 27 * 24 + 480
    with pytest.raises(WiringError, match="it does not run on an image of 3×6×6"):
        profile(network(), (6, 6))
    with pytest.raises(WiringError, match="Square counts square images only, not 8 × 6 pixels"):
        profile(Square(), (8, 6))
    assert profile(Square(), (8, 8)).macs == 0
