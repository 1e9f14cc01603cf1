"""Graphs with cycles of one's own: fast evaluation, effective edges, export."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.helpers.engines import CPU_ENGINES
from tests.helpers.exported_files import needs_onnx, run_onnx
from tests.wirings.own_networks import Masked, assert_same_logits, network, stem
from wirings.compacting import compact
from wirings.errors import WiringError
from wirings.exporting import export
from wirings.structure import (
    Classifier,
    CyclicStructure,
    FixedSteps,
    GraphLayer,
    Repeat,
    WiredNetwork,
    effective_edges,
)


class Cyclic(WiredNetwork):
    """Twelve nodes in which edges may lead anywhere."""

    def __init__(self, run, norm=nn.BatchNorm2d):
        super().__init__()
        self.stem, self.edges, self.norm = stem("modules", 3), Masked(12, 12, 0.2), norm(12)
        self.filters, self.head = nn.Parameter(torch.randn(12, 1, 3, 3) / 3), nn.Linear(4, 5)
        self.run = run

    def update(self, states):
        sent = F.conv2d(F.relu(states), self.filters, padding=1, groups=12)
        return self.norm(F.conv2d(sent, self.edges()))

    def forward(self, images):
        states = F.pad(self.stem(images), (0, 0, 0, 0, 0, 9))
        return self.head(self.run(self.update, states)[:, -4:].amax((2, 3)))

    def structure(self):
        return CyclicStructure(
            self.stem, self.edges, self.filters, self.norm, num_inputs=3, num_outputs=4, run=self.run,
            pool=lambda maps: maps.amax((-2, -1)), classifier=Classifier(self.head.weight, self.head.bias),
        )  # fmt: skip

    def wired_layers(self):
        return [GraphLayer("edges", self.edges, 9)]


def heun(change, states, size):
    first = change(states)
    return size / 2 * (first + change(states + size * first))


def two_halves(change, states):
    states = states + change(states) / 2
    return states + change(states) / 2


RUNS = {"repeat": Repeat(3), "fixed": FixedSteps(heun, 3), "own": two_halves}


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d, lambda _nodes: nn.Identity()])
def test_graphs_with_cycles(engine, run, norm):
    assert_same_logits(network(6, Cyclic, run=RUNS[run], norm=norm), engine)


def test_nodes_of_graphs_with_cycles():
    """In discrete time those that some update reads, in continuous time all."""
    model = network(7, Cyclic, run=Repeat(1))
    read = model.edges.mask[-4:].flatten(1).any(0)
    read[-4:] = True
    assert len(compact(model).stages[0].filters) == int(read.sum())
    assert len(compact(network(7, Cyclic, run=two_halves)).stages[0].filters) == 12


@pytest.mark.parametrize("run", RUNS)
def test_effective_edges_of_graphs_with_cycles(run):
    """All other edges carry zeros, or what nobody reads: whatever their weights, the logits are the same."""
    model = network(8, Cyclic, run=RUNS[run], norm=lambda _nodes: nn.Identity()).double()
    effective = effective_edges(model)
    in_use = model.edges.mask.flatten(1)
    assert not (effective & ~in_use).any()
    assert 0 < int(effective.sum()) < int(in_use.sum())
    images = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    with torch.no_grad():
        logits = model(images)
        model.edges.weight[~effective] *= -3
        torch.testing.assert_close(model(images), logits)
        model.edges.weight[effective] *= -3
        assert not torch.allclose(model(images), logits)


@needs_onnx
@pytest.mark.parametrize("run", ["repeat", "fixed", "own"])
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, lambda nodes: nn.InstanceNorm2d(nodes, affine=True)])
def test_files_of_graphs_with_cycles(tmp_path, run, norm):

    model = network(9, Cyclic, run=RUNS[run], norm=norm)
    if run == "own":
        with pytest.raises(WiringError, match="continuous time cannot be exported"):
            export(model, tmp_path / "out.onnx", (3, 16, 16))
        return
    export(model, tmp_path / "out.onnx", (3, 16, 16))
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            run_onnx(tmp_path / "out.onnx", images), model(images), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_outputs": 13}, "a graph of 12 × 12 edges cannot have 3 inputs and 13 outputs"),
        ({"num_inputs": 0}, "cannot have 0 inputs"),
        ({"rule": Masked(12, 9)}, "a graph of 12 × 9 edges"),
        ({"filters": torch.zeros(11, 1, 3, 3)}, r"filters must be \(12, 1, 3, 3\), got \(11, 1, 3, 3\)"),
        ({"norm": nn.BatchNorm2d(3)}, "a norm of 3 nodes follows 12 nodes"),
        ({"classifier": Classifier(torch.zeros(5, 12))}, "the classifier reads 12 features, but 4 nodes"),
    ],
)
def test_graphs_with_cycles_that_contradict_themselves(changes, message):
    model = network(0, Cyclic, run=Repeat(2))
    described = dataclasses.replace(model.structure(), **changes)
    model.structure = lambda: described
    with pytest.raises(WiringError, match=message):
        compact(model)
