"""Costs of networks that `wire` has wired: weights in use, in the row of their layer."""

import pytest
import torch
from torch import nn

import wirings
from wirings.profiling import as_table, profile
from wirings.structure import GraphLayer


class Small(nn.Module):
    """A convolution in two groups, a transposed one, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.grouped = nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False)
        self.transposed = nn.ConvTranspose2d(6, 5, 2, stride=2)
        self.head = nn.Linear(5, 3)

    def forward(self, images):
        return self.head(self.transposed(self.grouped(images)).mean((2, 3)))


SIZES = {"grouped": 6 * 2 * 9, "transposed": 6 * 5 * 4, "head": 15}
PIXELS = {"grouped": 64, "transposed": 64, "head": 1}
"""How often each weight is used, for images of 8 × 8 pixels."""
BIASES = {"grouped": 0, "transposed": 5, "head": 3}


def in_use(layer):
    return layer.wiring.in_use()


def test_weights_in_use_are_counted():
    torch.manual_seed(0)
    model = Small()
    dense = profile(model, 8)
    assert [layer.params for layer in dense.per_layer] == [SIZES[n] + BIASES[n] for n in SIZES]
    wirings.wire(model, density=0.3)
    before = profile(model, 8)
    for layer in before.per_layer:
        module = getattr(model, layer.name)
        edges = int(in_use(module).sum())
        assert (layer.potential, layer.edges, layer.effective) == (SIZES[layer.name], edges, None)
        assert layer.params == edges + BIASES[layer.name]
        assert layer.macs == edges * PIXELS[layer.name]
    assert [layer.name for layer in before.per_layer] == list(SIZES)
    assert before.effective_edges is before.live_nodes is None
    assert "wiring" not in as_table(before)
    assert profile(wirings.unwire(model), 8) == dense


class Listed(Small):
    def wired_layers(self):
        return [GraphLayer("head", self.head.wiring, map_size=1, filter_weights=0)]


def test_a_layer_that_the_network_lists_is_counted_once():
    model = Listed()
    wirings.wire(model, density=0.3)
    counted = profile(model, 8)
    edges = int(in_use(model.head).sum())
    assert [layer.name for layer in counted.per_layer] == ["grouped", "transposed", "head", "head"]
    bias, graph = counted.per_layer[2:]
    assert (bias.params, bias.macs, bias.potential) == (3, 0, 0)
    assert (graph.params, graph.macs, graph.potential) == (edges, edges, 15)


@pytest.mark.parametrize("compiled", [False, True])
def test_names_of_nested_layers(compiled):
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1, bias=False)), nn.Flatten())
    wirings.wire(model, density=0.5)
    model = torch.compile(model) if compiled else model
    (layer,) = profile(model, 2).per_layer
    assert (layer.name, layer.params, layer.macs, layer.potential) == ("0.0", 6, 24, 12)
