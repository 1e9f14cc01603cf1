"""Removal of dead channels against its definition, and in networks of torchvision."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from tests.helpers.examples import examples
from tests.wirings.channel_cases import EDGES, chain, check, image, left, only, select, shift_norms
from wirings.channel_flow import ChannelFlow
from wirings.channel_trace import trace


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


@examples(30)
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


@examples(40)
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
