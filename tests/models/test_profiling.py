"""Counting what a network costs."""

import pytest
import torch
from torch import nn

from models.graphs.edges import PotentialEdges, RandomEdges
from wirings.profiling import Profile, as_table, profile
from wirings.structure import GraphLayer, LayerComplexity, wired_layers


def test_edges_and_filters_of_live_sources():
    rule = RandomEdges(PotentialEdges(4, 3, 1, 1), num_edges=6)
    rule.mask.zero_()
    rule.mask[1, 0] = rule.mask[2, 0] = rule.mask[3, 2] = 1
    layer = GraphLayer("graph", rule, map_size=5, passes=2)
    cost = {"params": 3 + 9 * 2, "macs": (3 + 9 * 2) * 25 * 2, "potential": 12, "edges": 3}
    cost["macs_per_edge"] = 25 * 2
    assert layer.complexity() == LayerComplexity("graph", **cost, effective=3, live_nodes=2)
    effective = torch.zeros(4, 3, dtype=torch.bool)
    effective[1:3, 0] = True
    assert layer.complexity(effective) == LayerComplexity("graph", **cost, effective=2, live_nodes=1)


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 10)

    def forward(self, images):
        return self.linear(self.norm(self.conv(images)).mean((2, 3)))


def test_dense_networks_are_counted_while_they_run():
    model = Dense().train()
    counted = profile(model, image_size=16)
    assert counted.params == 216 + 16 + 90
    assert counted.macs == 216 * 64 + 80
    assert counted.edges == 0
    assert wired_layers(model) == []
    assert model.training
    assert not model.conv._forward_hooks
    assert model.norm.num_batches_tracked == 0
    with pytest.raises(ValueError, match="Dense has no image_size"):
        profile(model)


def test_tiny_classifiers_run_at_their_own_size_only():
    class Sized(Dense):
        image_size = 32

        def complexity(self):
            return [LayerComplexity("all", 1, 2)]

    assert profile(Sized(), 32).macs == 2
    with pytest.raises(ValueError, match="runs at 32 pixels only, not at 64"):
        profile(Sized(), 64)


def test_table_of_layers():
    layers = (LayerComplexity("stem", 10, 2000), LayerComplexity("graph", 5, 30, 100, 4, 3, 2))
    lines = as_table(Profile(15, 2030, layers)).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0][3:] == ["potential edges", "in use", "effective", "live nodes"]
    assert cells[2] == ["stem", "10", "2,000", "", "", "", ""]
    assert cells[3] == ["graph", "5", "30", "100", "4", "3", "2"]
    assert cells[4] == ["total", "15", "2,030", "100", "4", "3", "2"]
    assert len({len(line) for line in lines}) == 1


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(256, 10)

    def forward(self, images):
        return self.linear(images.flatten(1))


def test_networks_without_convolutions():
    assert profile(Flat(), 16, in_channels=1).macs == 2560
    with pytest.raises(ValueError, match=r"cost of Flat cannot be counted: it does not run .* 1×20×20"):
        profile(Flat(), 20, in_channels=1)
