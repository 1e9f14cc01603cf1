"""Costs of networks that are not ours: each by hand, and as torch's own counter has them."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations, parametrize
from torch.utils.flop_counter import FlopCounterMode

from models.graphs.edges import PotentialEdges, RandomEdges
from wirings.profiling import profile
from wirings.structure import GraphLayer


class Net(nn.Module):
    """Runs `layer` on what `prepare` makes of the images."""

    def __init__(self, layer, prepare=lambda images: images):
        super().__init__()
        self.layer, self.prepare = layer, prepare

    def forward(self, images):
        return self.layer(self.prepare(images))


def signal(images):
    return images.flatten(2)


def volume(images):
    return images.unsqueeze(2).expand(-1, -1, 4, -1, -1)


def tokens(images):
    """(1, 64, 3)"""
    return images.flatten(2).transpose(1, 2)


class Mask(nn.Module):
    def __init__(self, like):
        super().__init__()
        self.register_buffer("mask", (torch.rand_like(like) > 0.5).to(like))

    def forward(self, weight):
        return weight * self.mask


def masked(layer):
    return parametrize.register_parametrization(layer, "weight", Mask(layer.weight))


def weight_norm_of_old(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer)


def conv():
    return nn.Conv2d(3, 8, 3, padding=1)


LAYERS = {
    "plain": (conv, None, 216 * 64, 224),
    "mask": (lambda: masked(conv()), None, 216 * 64, 224),
    "weight_norm": (lambda: parametrizations.weight_norm(conv()), None, 216 * 64, 232),
    "weight_norm_of_old": (lambda: weight_norm_of_old(conv()), None, 216 * 64, 232),
    "spectral_norm": (lambda: parametrizations.spectral_norm(conv()), None, 216 * 64, 224),
    "spectral_norm_of_old": (lambda: nn.utils.spectral_norm(conv()), None, 216 * 64, 224),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(3, 4)), tokens, 64 * 12, 16),
    "mask_of_norm": (lambda: masked(parametrizations.weight_norm(conv())), None, 216 * 64, 232),
    "transposed": (lambda: nn.ConvTranspose2d(3, 8, 3, stride=2), None, 216 * 64, 224),
    "transposed_groups": (lambda: nn.ConvTranspose2d(3, 6, 3, groups=3), None, 54 * 64, 60),
    "transposed_1d": (lambda: nn.ConvTranspose1d(3, 8, 3, stride=2), signal, 72 * 64, 80),
    "transposed_3d": (lambda: nn.ConvTranspose3d(3, 8, 3), volume, 648 * 256, 656),
    "signal": (lambda: nn.Conv1d(3, 8, 3, padding=1), signal, 72 * 64, 80),
    "volume": (lambda: nn.Conv3d(3, 8, 3, padding=1), volume, 648 * 256, 656),
    "strided_groups": (lambda: nn.Conv2d(3, 9, 3, 2, 1, groups=3, bias=False), None, 81 * 16, 81),
    "same": (lambda: nn.Conv2d(3, 8, 3, padding="same", dilation=2), None, 216 * 64, 224),
    "circular": (lambda: nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"), None, 216 * 64, 224),
    "tokens": (lambda: nn.Linear(3, 5), tokens, 15 * 64, 20),
    "vector": (lambda: nn.Linear(192, 5), lambda images: images.flatten(), 960, 965),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    layer, prepare, macs, params = LAYERS[name]
    model = Net(layer(), prepare or (lambda images: images))
    counted = profile(model, 8)
    assert (counted.macs, counted.params) == (macs, params)
    assert [(row.name, row.macs) for row in counted.per_layer] == [("layer", macs)]


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention(batch_first):
    """Projections of 64 tokens, and two products of 64 × 64 × 12 over all heads together."""
    layer = nn.MultiheadAttention(12, 3, batch_first=batch_first)

    def attend(images):
        x = images.flatten(2).transpose(1, 2).repeat(1, 1, 4)
        return x if batch_first else x.transpose(0, 1)

    class Attending(Net):
        def forward(self, images):
            x = self.prepare(images)
            return self.layer(x, x, x, need_weights=False)[0]

    counted = profile(Attending(layer, attend).eval(), 8)
    assert counted.macs == 64 * 12 * 36 + 2 * 64 * 64 * 12 + 64 * 12 * 12
    assert counted.params == sum(parameter.numel() for parameter in layer.parameters())
    encoder = nn.TransformerEncoderLayer(12, 3, 20, batch_first=batch_first)
    whole = profile(Net(encoder, attend).eval(), 8)
    assert whole.macs == counted.macs + 2 * 64 * 12 * 20
    assert {row.name: row.macs for row in whole.per_layer}["layer.linear1"] == 64 * 12 * 20


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_layers(kind, bidirectional):
    layer = kind(3, 5, num_layers=2, batch_first=True, bidirectional=bidirectional)
    matrices = sum(parameter.numel() for parameter in layer.parameters() if parameter.dim() == 2)
    assert profile(Net(layer, tokens), 8).macs == 64 * matrices


def test_products_in_a_forward_method():
    class Products(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 5))
            self.filters = nn.Parameter(torch.randn(3, 1, 3, 3))

        def forward(self, images):
            x = tokens(images)
            y = torch.einsum("ntc,cd->ntd", x, self.weight)  # 64·3·5
            y = y + x[0] @ self.weight  # 64·3·5
            y = y + torch.bmm(x, x.transpose(1, 2)) @ y  # 64·64·3 + 64·64·5
            y = y + (x[0] @ self.weight[:, 0])[:, None]  # 64·3
            y = y + torch.dot(x.flatten(), x.flatten())  # 192
            y = y + F.scaled_dot_product_attention(x, x, x).sum()  # 2·64·64·3
            return y + F.conv2d(images, self.filters, padding=1, groups=3).sum()  # 27·64

    counted = profile(Products(), 8)
    assert counted.macs == 2 * 960 + 64 * 64 * 8 + 192 + 192 + 2 * 64 * 64 * 3 + 27 * 64
    assert counted.params == 42
    assert [row.name for row in counted.per_layer] == ["Products"]


def test_a_bilinear_layer():
    class Pair(Net):
        def forward(self, images):
            return self.layer(tokens(images), tokens(images))

    assert profile(Pair(nn.Bilinear(3, 3, 2)), 8).macs == 64 * 18


def test_an_operation_in_inference_mode():
    class Inference(Net):
        @torch.inference_mode()
        def forward(self, images):
            return self.layer(tokens(images))

    assert profile(Inference(nn.Linear(3, 5)), 8).macs == 15 * 64


def test_layers_used_twice_or_never_and_shared_weights():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.never = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 7)
            self.second.weight = self.first.weight
            self.again = self.first

        def forward(self, images):
            x = tokens(images)
            return self.second(self.again(self.first(x)))

    counted = profile(Shared(), 8)
    assert {row.name: (row.params, row.macs) for row in counted.per_layer} == {
        "first": (12, 2 * 576),
        "second": (3, 576),
        "never": (28, 0),
    }


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_16", "swin_t"])
@pytest.mark.slow
def test_as_torch_counts_them(name):
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.get_model(name, weights=None).eval()
    counter = FlopCounterMode(display=False)
    # torch's counter misses fused attention, which is used without gradients or on the CPU.
    with counter, sdpa_kernel(SDPBackend.MATH):
        model(torch.zeros(1, 3, 224, 224))
    counted = profile(model, 224)
    assert counted.macs == counter.get_total_flops() // 2
    assert counted.params == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("how", ["function", "method", "part"])
def test_compiled_networks_run_eagerly_and_keep_their_names(how):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 5))

    def failing(*_):
        raise AssertionError("compiled")

    expected = profile(model, 8)
    if how == "function":
        compiled = torch.compile(model, backend=failing)
    elif how == "part":
        model[0] = torch.compile(model[0], backend=failing)
        compiled = model
    else:
        model.compile(backend=failing)
        compiled = model
    assert profile(compiled, 8) == expected
    assert [row.name for row in expected.per_layer] == ["0", "2"]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_scripted_network():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 5))
    assert profile(torch.jit.script(model), 8).macs == profile(model, 8).macs


def test_a_network_is_left_as_it_was():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
            self.drop = nn.Dropout()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, images):
            self.calls += 1
            self.seen = self.seen + len(images)
            return self.drop(self.norm(self.conv(images))) + torch.randn(1)

    model = Counting().train()
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    objects = dict(model.named_buffers())
    rng = torch.get_rng_state()
    fast = torch.backends.mha.get_fastpath_enabled()
    assert profile(model, 8).macs == 216 * 36
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(objects[name] is value for name, value in model.named_buffers())
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.backends.mha.get_fastpath_enabled() == fast


@pytest.mark.parametrize("error", [ValueError("no\nsecond line"), TypeError(), AssertionError("no")])
def test_a_network_that_raises_is_not_counted_and_left_as_it_was(error):
    class Raising(Net):
        def forward(self, images):
            raise error

    model = Raising(conv()).train()
    message = rf"cost of Raising cannot be counted: .* 3×8×8 \({str(error)[:2] or 'TypeError'}\); define"
    with pytest.raises(ValueError, match=message):
        profile(model, 8)
    assert model.training and model.layer.training
    assert not model._forward_pre_hooks


def test_the_given_number_of_channels_is_used():
    class HeadFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.stem = nn.Conv2d(8, 2, 1), nn.Conv2d(1, 8, 1)

        def forward(self, images):
            return self.head(self.stem(images))

    assert profile(HeadFirst(), 8, in_channels=1).macs == 64 * (8 + 16)


def test_networks_without_parameters_and_with_layers_that_have_no_sizes_yet():
    class Empty(nn.Module):
        def forward(self, images):
            return images.mean((2, 3))

    assert profile(Empty(), 8).macs == profile(Empty(), 8).params == 0
    lazy = nn.Sequential(nn.LazyConv2d(8, 3), nn.Flatten(), nn.LazyLinear(5))
    counted = profile(lazy, 8)
    assert (counted.params, counted.macs) == (216 + 8 + 1440 + 5, 216 * 36 + 1440)


class Wired(nn.Module):
    """A wired layer by a function of torch, between two linear layers."""

    def __init__(self, listed):
        super().__init__()
        self.graph = RandomEdges(PotentialEdges(6, 3, 3, 6), num_edges=9)
        self.fc = nn.Linear(6, 2)
        self.listed = listed

    def forward(self, images):
        return self.fc(F.conv2d(images, self.graph()).mean((2, 3)))

    def wired_layers(self):
        return [GraphLayer("graph", self.graph, map_size=8, filter_weights=0)] if self.listed else []


@pytest.mark.parametrize("listed", [True, False])
def test_products_with_the_weights_of_an_edge_rule_count_by_the_edges_in_use(listed):
    counted = profile(Wired(listed), 8)
    rows = {row.name: (row.params, row.macs) for row in counted.per_layer}
    assert rows == {"fc": (14, 12), "graph": (9, 9 * 64)}
    assert counted.edges == (9 if listed else 0)
