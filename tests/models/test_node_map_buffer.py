"""Sending and receiving is a sum of products; its gradient survives whatever autograd does with a graph."""

import pytest
import torch
import torch.nn.functional as F

from wirings.blocks import Block, read_blocks
from wirings.node_map_buffer import NodeMapBuffer
from wirings.selection import EdgeSelection

WIDTHS = (3, 2, 4)


def sent_and_received(maps, weights, buffer_of):
    """Three groups: each later one receives from all before it and sends its ReLU; four outputs."""
    buffer = buffer_of(sum(WIDTHS))
    buffer.send(maps)
    for weight in weights[:-1]:
        buffer.send(F.relu(buffer.receive(weight)))
    return buffer.receive(weights[-1]) + buffer.receive(weights[-1][:, 5:], first=5)


class ByDefinition:
    def __init__(self, _count):
        self.maps = []

    def send(self, maps):
        self.maps.append(maps)

    def receive(self, weight, first=0):
        return torch.einsum("tsij,nshw->nthw", weight, torch.cat(self.maps, 1)[:, first:])


class ByEdges(NodeMapBuffer):
    """Takes each matrix apart into its edges."""

    gradient = "all"

    def __init__(self, count):
        super().__init__(count, by_edges=True)

    def receive(self, weight, first=0):
        whole = tuple(slice(0, length) for length in weight.shape[:2])
        (block,) = read_blocks(
            weight,
            [whole],
            EdgeSelection.from_indices(torch.arange(weight.numel()), weight.shape),
            self.gradient,
        )
        assert block.edges is not None
        return super().receive(block, first)


class ByEdgesInUse(ByEdges):
    """The gradient of each edge is computed by itself."""

    gradient = "used"


class ByPixel(NodeMapBuffer):
    def receive(self, weight, first=0):
        return super().receive(Block(weight), first)


@pytest.fixture(params=[ByPixel, ByEdges, ByEdgesInUse])
def buffer(request, monkeypatch):
    monkeypatch.setattr("wirings.blocks._SPARSE_BELOW", 2)
    monkeypatch.setattr("wirings.blocks._SPARSE_FROM", 0)
    return request.param


@pytest.fixture
def arguments():
    torch.manual_seed(0)
    shapes = [(2, 3), (4, 5), (4, 9)]
    weights = [torch.randn(*shape, 1, 1, dtype=torch.float64, requires_grad=True) for shape in shapes]
    return torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True), weights


def gradients(value, maps, weights, **options):
    return torch.autograd.grad(value.square().sum(), [maps, *weights], **options)


def test_values_and_gradients(arguments, buffer):
    plain = sent_and_received(*arguments, ByDefinition)
    fast = sent_and_received(*arguments, buffer)
    assert torch.allclose(fast, plain)
    for mine, expected in zip(gradients(fast, *arguments), gradients(plain, *arguments), strict=True):
        assert torch.allclose(mine, expected)


def test_several_backward_passes(arguments, buffer):
    """Twice through one graph, after a part of it, and two graphs at once."""
    expected = gradients(sent_and_received(*arguments, ByDefinition), *arguments)
    first, second = (sent_and_received(*arguments, buffer) for _ in range(2))
    torch.autograd.grad(first.sum(), arguments[1][-1], retain_graph=True)
    found = [gradients(first, *arguments, retain_graph=True), gradients(second, *arguments)]
    found.append(gradients(first, *arguments))
    for one in found:
        for mine, plain in zip(one, expected, strict=True):
            assert torch.allclose(mine, plain)


def test_without_gradients(arguments, buffer):
    expected = sent_and_received(*arguments, ByDefinition)
    with torch.no_grad():
        assert torch.allclose(sent_and_received(*arguments, buffer), expected)
    with torch.inference_mode():
        assert torch.allclose(sent_and_received(*arguments, buffer), expected)


def test_what_is_received_has_channels_last(arguments, buffer):
    assert sent_and_received(*arguments, buffer).is_contiguous(memory_format=torch.channels_last)


def test_lower_precision_of_autocast(arguments):
    maps, weights = (
        arguments[0].float(),
        [weight.detach().float().requires_grad_() for weight in arguments[1]],
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = sent_and_received(maps.bfloat16(), weights, ByPixel)
    assert value.dtype == torch.bfloat16
    value.float().square().sum().backward()
    expected = gradients(sent_and_received(*arguments, ByDefinition), *arguments)[1:]
    for weight, plain in zip(weights, expected, strict=True):
        assert weight.grad.dtype == torch.float32
        assert (weight.grad - plain).abs().max() < 0.05 * plain.abs().max()


def test_double_backward_is_refused(arguments, buffer):
    value = sent_and_received(*arguments, buffer)
    (gradient,) = torch.autograd.grad(value.square().sum(), arguments[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
