"""The fast paths of training against the plain definition: same logits, same gradients, same weights."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.baseline import Baseline
from genutil.config import load_config
from models import build_model
from models.graphs.nodenorm import NodeNorm
from tests.conftest import ROOT, SMALL_GRAPH
from wirings.blocks import read_blocks
from wirings.layout import conv1x1
from wirings.selection import EdgeSelection
from wirings.wiring import Wiring

PIECES = ((slice(1, 6), slice(0, 2)), (slice(3, 6), slice(2, 5)), (slice(5, 6), slice(5, 7)))


def channels_last(*shape):
    return torch.randn(*shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("gradient", ["all", "used"])
@pytest.mark.parametrize("masked", [True, False])
def test_blocks_are_slices(masked, gradient):
    weight = torch.randn(6, 7, 1, 1, dtype=torch.float64, requires_grad=True)
    mask = torch.rand_like(weight) < 0.5 if masked else torch.ones_like(weight, dtype=torch.bool)
    selections = [EdgeSelection.from_mask(mask)]
    if masked:
        selections.append(EdgeSelection.from_indices(mask.flatten().nonzero().flatten(), weight.shape))
    else:
        selections += [None, EdgeSelection.full(weight.shape)]
    for selection in selections:
        weights = [block.weight for block in read_blocks(weight, PIECES, selection, gradient)]
        for block, piece in zip(weights, PIECES, strict=True):
            assert torch.equal(block, (weight * mask)[piece])
            assert block.is_contiguous()
        assert_gradient(weight, weights, mask if gradient == "used" else torch.ones_like(mask))


def assert_gradient(weight, blocks, reached):
    """Straight-through, it reaches also weights that are not in use."""
    gradients = [torch.randn_like(block).contiguous() for block in blocks]
    (found,) = torch.autograd.grad(blocks, weight, gradients)
    expected = torch.zeros_like(weight)
    for gradient, piece in zip(gradients, PIECES, strict=True):
        expected[piece] = gradient
    assert torch.equal(found, expected * reached)


@pytest.mark.parametrize("gradient", ["all", "used"])
def test_few_edges_come_as_edges(monkeypatch, gradient):
    monkeypatch.setattr("wirings.blocks._SPARSE_FROM", 0)
    weight = torch.randn(6, 7, 1, 1, dtype=torch.float64, requires_grad=True)
    selection = EdgeSelection.from_indices(torch.tensor([2 * 7 + 1]), weight.shape)  # in the first piece
    blocks = read_blocks(weight, PIECES, selection, gradient)
    if gradient == "used":
        assert [block.edge_weights.tolist() for block in blocks] == [[weight[2, 1].item()], [], []]
        (found,) = torch.autograd.grad(blocks[0].edge_weights, weight, torch.tensor([3.0]).double())
        assert torch.equal(found, 3.0 * selection.mask())
    else:
        assert_gradient(weight, [block.weight for block in blocks], torch.ones_like(selection.mask()))
    for block, piece in zip(blocks, PIECES, strict=True):
        matrix = selection.apply(weight)[piece].flatten(1)
        sources = torch.randn(matrix.shape[1], 3, dtype=torch.float64)
        assert torch.allclose(
            block.edges.product(sources, sources.new_empty(len(matrix), 3)), matrix @ sources
        )


def test_a_block_without_a_gradient_counts_as_zero():
    weight = torch.randn(6, 7, 1, 1, requires_grad=True)
    read_blocks(weight, PIECES)[1].weight.sum().backward()
    expected = torch.zeros(6, 7, 1, 1)
    expected[PIECES[1]] = 1
    assert torch.equal(weight.grad, expected)


def test_sending_is_a_convolution():
    sources, weight = (
        channels_last(2, 5, 3, 4).requires_grad_(),
        torch.randn(6, 5, 1, 1).double().requires_grad_(),
    )
    sent = conv1x1(sources, weight)
    assert sent.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(sent, F.conv2d(sources, weight))
    assert torch.allclose(conv1x1(sources.contiguous(), weight), sent)
    assert torch.autograd.gradcheck(conv1x1, (sources, weight))


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (1, 4, 2, 2)])
def test_norm_with_channels_last_is_the_norm(shape):
    torch.manual_seed(0)
    norm, maps = NodeNorm(4).double(), channels_last(*shape)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    expected = nn.InstanceNorm2d.forward(norm, maps)
    assert torch.allclose(norm(maps), expected, atol=1e-12)
    assert norm(maps).is_contiguous(memory_format=torch.channels_last)

    def run(maps, weight, bias):
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, maps)

    arguments = (maps.requires_grad_(), norm.weight, norm.bias)
    assert torch.autograd.gradcheck(run, arguments)


def test_norm_of_constant_maps_is_its_shift():
    norm = NodeNorm(3)
    nn.init.normal_(norm.bias)
    maps = torch.full((2, 3, 4, 4), 1e3).contiguous(memory_format=torch.channels_last)
    assert torch.allclose(norm(maps), norm.bias.view(1, 3, 1, 1).expand(2, 3, 4, 4))


def train(network, steps, images, labels):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    for _ in range(steps):
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize(
    ("app", "keys"),
    [
        ("small_scale/static_dnw.yml", SMALL_GRAPH),
        ("small_scale/discrete_time_dnw.yml", SMALL_GRAPH),
        ("small_scale/continuous_time_dnw.yml", SMALL_GRAPH),
        ("medium_scale/mobilenetv1_dnw_x225.yml", {"image_size": 32}),
        ("medium_scale/mobilenetv1_dnw_x225.yml", {"image_size": 32, "small": True, "graph": "complete"}),
    ],
)
@pytest.mark.usefixtures("small_mobilenet")
@pytest.mark.parametrize("by_edges", [False, True])
def test_thirty_steps_give_the_weights_of_the_plain_definition(app, keys, by_edges, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr("wirings.blocks._SPARSE_FROM", 0 if by_edges else 10_000)
    monkeypatch.setattr("wirings.blocks._SPARSE_BELOW", 0.2)
    fast = build_model(load_config(ROOT / "apps" / app, keys)).double().train()
    plain = Baseline(copy.deepcopy(fast))
    size = keys["image_size"]
    images, labels = torch.randn(6, 3, size, size).double(), torch.arange(6) % 3
    steps = 8 if "continuous" in app else 30
    assert train(fast, steps, images, labels) == pytest.approx(train(plain, steps, images, labels), abs=1e-8)
    for name, value in plain.network.state_dict().items():
        assert torch.allclose(fast.state_dict()[name], value, rtol=0, atol=1e-8), name


@pytest.mark.parametrize(
    ("app", "keys"),
    [
        ("small_scale/static_dnw.yml", SMALL_GRAPH),
        ("medium_scale/mobilenetv1_dnw_x225.yml", {"image_size": 32}),
    ],
)
@pytest.mark.parametrize("graph", ["random", "dnw_no_update", "fine_tune"])
@pytest.mark.usefixtures("small_mobilenet")
def test_gradient_of_the_edges_in_use_is_that_of_whole_matrices(app, keys, graph, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr("wirings.blocks._SPARSE_BELOW", 0.2)
    by_edges = build_model(load_config(ROOT / "apps" / app, keys | {"graph": graph})).double().train()
    for rule in Wiring(by_edges).rules.values():
        rule.freeze_wiring()
    by_matrix = copy.deepcopy(by_edges)
    images = torch.randn(6, 3, keys["image_size"], keys["image_size"]).double()
    losses = []
    for network, sparse_from in ((by_edges, 0), (by_matrix, 10_000)):
        monkeypatch.setattr("wirings.blocks._SPARSE_FROM", sparse_from)
        losses.append(train(network, 5, images, torch.arange(6) % 3))
    assert losses[0] == pytest.approx(losses[1], abs=1e-9)
    for name, value in by_matrix.state_dict().items():
        assert torch.allclose(by_edges.state_dict()[name], value, rtol=0, atol=1e-9), name


def test_baseline_knows_its_networks():
    with pytest.raises(ValueError, match="there is no baseline for Linear"):
        Baseline(nn.Linear(1, 1))
