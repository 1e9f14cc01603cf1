"""The tiny classifiers against golden numbers, against plain definitions, and at sizes of all kinds."""

import pytest
import torch
import torch.nn.functional as F

from models.graphs.neuralgraph import (
    ContinuousTimeNeuralGraph,
    DiscreteTimeNeuralGraph,
    StaticNeuralGraph,
)
from wirings.rules import build_rule
from wirings.stages import effective_in_cycles
from wirings.topk import Selector, num_kept

MODELS = [StaticNeuralGraph, DiscreteTimeNeuralGraph, ContinuousTimeNeuralGraph]
SMALL = {
    "in_channels": 3, "image_size": 16, "output_size": 7, "dim": 80, "downsample_dim": 8, "feature_dim": 10,
    "layers": 4, "setting": "static",
}  # fmt: skip


def rule_maker(graph="dnw", prune_rate=0.9, **options):
    return lambda potential: build_rule(graph, potential, num_kept(potential.numel, prune_rate), **options)


def small(model, graph="dnw", **changes):
    return model(**{**SMALL, **changes}, make_rule=rule_maker(graph))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("graph", ["dnw", "random", "complete"])
def test_forward_and_backward(model, graph):
    torch.manual_seed(0)
    network = small(model, graph)
    logits = network(torch.randn(3, 3, 16, 16))
    assert logits.shape == (3, 7)
    logits.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0 or name == "downsample.4.bias", name


def by_the_words(network, images):
    """The static model, node by node: input of a node is the sum over its edges in use."""
    weight = network.graph().flatten(1)
    dim, features = network.dim, network.feature_dim
    incoming = torch.zeros(len(images), dim, network.map_size, network.map_size, dtype=images.dtype)
    incoming[:, : network.downsample_dim] = network.downsample(images)
    output = torch.zeros(len(images), features, network.map_size, network.map_size, dtype=images.dtype)
    for index, (start, end) in enumerate(network.groups):
        last = index == len(network.groups) - 1
        if last:
            output = output + incoming[:, dim - features :]
        states = F.relu(network.norm[index](incoming[:, start:end]))
        states = F.conv2d(states, network.conv.weight[start:end], padding=1, groups=end - start)
        for target in range(dim - features if last else end, dim):
            message = torch.einsum("s,nshw->nhw", weight[target, start:end], states)
            if last:
                output[:, target - (dim - features)] += message
            else:
                incoming = incoming.clone()
                incoming[:, target] += message
    middle = network.map_size // 2
    return network.fc(output[..., middle - 2 : middle, middle - 2 : middle].mean((2, 3)))


def test_static_model_node_by_node():
    torch.manual_seed(0)
    network = small(StaticNeuralGraph).double().eval()
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(network(images), by_the_words(network, images), atol=1e-12)


def test_discrete_model_step_by_step():
    torch.manual_seed(0)
    network = small(DiscreteTimeNeuralGraph).double().eval()
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        states = network.start(images)
        for _ in range(4):
            states = network.norm(
                torch.einsum("ts,nshw->nthw", network.graph().flatten(1), network.conv(states.clamp(min=0)))
            )
        centre = states[:, -10:, 0:2, 0:2].mean((2, 3))
        assert torch.allclose(network(images), network.fc(centre), atol=1e-10)


def test_continuous_model_is_the_solution_of_its_equation():
    torch.manual_seed(0)
    network = small(ContinuousTimeNeuralGraph).double().eval()
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        states = network.start(images)
        before = states.clone()
        dynamics, weight, steps = network.odesolve.odefunc, network.odesolve.odefunc.graph(), 200
        solved = network.odesolve(states)
        assert torch.equal(states, before)  # nothing is rewritten in place
        for _ in range(steps):  # explicit midpoint rule, small steps
            half = states + dynamics(states, weight) / (2 * steps)
            states = states + dynamics(half, weight) / steps
    # The published tolerance of 1e-3 a solver step leaves a few percent at t = 1.
    assert (solved - states).norm() < 0.02 * (states - before).norm()


@pytest.mark.parametrize("model", MODELS)
def test_one_selection_a_forward_pass(model, monkeypatch):
    calls = []
    real = Selector.select
    monkeypatch.setattr(Selector, "select", lambda *a: calls.append(1) or real(*a))
    network = small(model)
    images = torch.randn(2, 3, 16, 16)
    network(images).sum().backward()
    assert len(calls) == 1
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    network(images)
    assert len(calls) == 2
    network.eval()
    with torch.no_grad():
        for _ in range(5):
            network(images)
    assert len(calls) == 3  # one for a whole evaluation
    if model is ContinuousTimeNeuralGraph:
        assert network.odesolve.num_evaluations > 5


def test_random_wiring_pattern_depends_on_the_setting():
    torch.manual_seed(0)
    static = small(StaticNeuralGraph, "random").graph.mask.flatten(1)
    assert not static[:10, 8:18].any()
    assert not static[:20, 18:28].any()
    free = small(DiscreteTimeNeuralGraph, "random", setting="discrete_time").graph.mask.flatten(1)
    assert free[:10, 8:18].any()


@pytest.mark.parametrize(
    "sizes",
    [
        {"image_size": 13},
        {"image_size": 28},
        {"image_size": 33, "in_channels": 1},
        {"dim": 32, "downsample_dim": 2, "feature_dim": 1, "layers": 31},
        {"dim": 24, "downsample_dim": 4, "feature_dim": 20, "layers": 2},
    ],
)
@pytest.mark.parametrize("model", MODELS)
def test_sizes_of_all_kinds(model, sizes):
    network = small(model, "complete", **sizes)
    keys = {**SMALL, **sizes}
    images = torch.randn(2, keys["in_channels"], keys["image_size"], keys["image_size"])
    assert network(images).shape == (2, 7)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"image_size": 12}, "image_size must be at least 13"),
        ({"downsample_dim": 7}, "downsample_dim must be even"),
        ({"downsample_dim": 76}, "downsample_dim \\+ feature_dim at most dim"),
        ({"layers": 6}, "layers must be at least 2 and divide"),
        ({"layers": 1}, "layers must be at least 2"),
        ({"feature_dim": 30}, "groups of at least feature_dim"),
    ],
)
def test_sizes_that_do_not_fit(sizes, message):
    with pytest.raises(ValueError, match=message):
        small(StaticNeuralGraph, **sizes)


def test_complexity_of_the_published_size():
    """41,458 parameters = 32,000 edges + 7,200 (3×3) + 1,248 stem + 1,010 classifier."""
    torch.manual_seed(0)
    published = {**SMALL, "image_size": 32, "output_size": 10, "dim": 800, "downsample_dim": 32}
    published |= {"feature_dim": 100, "layers": 5}
    network = DiscreteTimeNeuralGraph(**published, make_rule=rule_maker(prune_rate=0.95))
    stem, graph, classifier = network.complexity()
    assert (stem.params, graph.params, classifier.params) == (1_248, 39_200, 1_010)
    assert (graph.potential, graph.edges) == (640_000, 32_000)
    assert stem.macs == 432 * 256 + 144 * 64 + 512 * 64
    assert graph.macs == 39_200 * 64 * 5
    assert classifier.macs == 1_000
    static = StaticNeuralGraph(**published, make_rule=rule_maker(prune_rate=0.95)).complexity()[1]
    assert static.params == 39_200
    assert static.macs == 39_200 * 64
    assert static.effective < 32_000  # the forward pass does not read all entries


def test_readable_edges_are_those_that_the_forward_pass_reads():
    """Gradients of a complete static graph reach the readable entries and no others."""
    torch.manual_seed(0)
    network = small(StaticNeuralGraph, "complete")
    network(torch.randn(4, 3, 16, 16)).square().sum().backward()
    readable = network.graph.potential.readable_mask
    touched = network.graph.weight.grad.flatten(1) != 0
    assert (touched <= readable).all()
    assert touched.sum() > 0.8 * readable.sum()  # ReLU leaves some sources at zero everywhere


@pytest.mark.parametrize(("steps", "expected"), [(1, 0), (2, 2), (3, 3), (5, 5), (None, 6)])
def test_effective_edges_of_graphs_with_cycles(steps, expected):
    """0 → 2 → 4 is a path of two edges, 0 → 2 → 3 → 4 one of three, 1 ⇄ 3 a detour; node 4 is the output."""
    edges = torch.zeros(5, 5, dtype=torch.bool)
    for source, target in ((0, 2), (2, 4), (2, 3), (3, 4), (3, 1), (1, 3)):
        edges[target, source] = True
    effective = effective_in_cycles(edges, 1, 1, steps)
    assert (effective <= edges).all()
    assert int(effective.sum()) == expected
