"""Channels that stay, networks that are left as they are, and wrong requests."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from tests.wirings.channel_cases import (
    EDGES,
    Calls,
    chain,
    check,
    image,
    left,
    only,
    reasons,
    select,
    with_layer,
)
from wirings.channels import remove_dead_channels
from wirings.errors import WiringError


class DoublingConv(nn.Conv2d):
    """Computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 2)


class RenamedConv(nn.Conv2d):
    """Another name alone."""


def test_reasons_to_stay():
    last = {"3": [(0, 0)]}
    model = with_layer(nn.Conv2d(4, 4, 3, groups=2))
    row = "its output goes through an operation whose channels are not known: 1 (Conv2d of 2 groups)"
    assert reasons(check(model, image(), only(model, **last))[1]) == {
        "0": row, "1": "it is a convolution of 2 groups", "3": "its output is the network's output",
    }  # fmt: skip
    model = with_layer(DoublingConv(4, 4, 3))
    report = check(model, image(), only(model, **last))[1]
    assert left(report) == {"0": 4, "3": 1}
    assert "not known: torch.conv2d" in reasons(report)["0"]
    model = with_layer(RenamedConv(4, 4, 3))
    assert left(check(model, image(), only(model, **last))[1]) == {"0": 4, "1": 1, "3": 1}
    model = with_layer(nn.Conv2d(4, 4, 3))
    model[1].register_forward_hook(lambda layer, args, result: result * 2)
    row = "its class, its hooks or the shape of its input are not those of a plain layer"
    assert reasons(check(model, image(), only(model, **last))[1])["1"] == row
    model = with_layer(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3)))
    assert reasons(check(model, image(), only(model, **last))[1])["1"] == row
    model = with_layer(nn.GroupNorm(2, 4))
    assert "not known: 1 (GroupNorm)" in reasons(check(model, image(), only(model, **last))[1])["0"]
    model = Calls(lambda net, x: net.conv(x) + x, conv=nn.Conv2d(1, 1, 1)).double()
    assert (
        reasons(check(model, image())[1])["conv"]
        == "its channels are in one group with those of the network's input"
    )


def test_layers_called_twice_or_with_shared_weights_stay():
    model = Calls(
        lambda net, x: net.last(F.relu(net.same(F.relu(net.same(net.first(x)))))),
        first=nn.Conv2d(1, 3, 3), same=nn.Conv2d(3, 3, 1), last=nn.Conv2d(3, 1, 1),
    ).double()  # fmt: skip
    report = check(model, image(), only(model, same=[(0, 0)], last=[(0, 0)]))[1]
    assert [layer.after for layer in report.layers] == [3, 3, 3, 1]
    assert report.layers[1].reason == "it is called more than once, or shares a parameter with another layer"
    assert "same (Conv2d, shared)" in report.layers[0].reason
    tied = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1)).double()
    tied[3].weight = tied[1].weight
    report = check(tied, image(), only(tied, **{"1": [(0, 0)]}))[1]
    assert left(report) == {"0": 3, "1": 3, "3": 3}
    assert "shares a parameter" in reasons(report)["1"]
    read = Calls(
        lambda net, x: net.last(F.relu(net.first(x))) + net.first.weight.sum(),
        first=nn.Conv2d(1, 3, 3), last=nn.Conv2d(3, 1, 1),
    ).double()  # fmt: skip
    assert left(check(read, image(), only(read, last=[(0, 0)]))[1]) == {"first": 3, "last": 1}


def test_activations_called_twice_are_no_obstacle():
    relu = nn.ReLU(inplace=True)
    model = nn.Sequential(nn.Conv2d(1, 3, 1), relu, nn.Conv2d(3, 3, 3), relu, nn.Conv2d(3, 1, 1)).double()
    in_use = only(model, **{"2": [(0, 0), (1, 2)], "4": [(0, 0)]})
    assert left(check(model, image(), in_use)[1]) == {"0": 1, "2": 1, "4": 1}


def test_operations_in_place_are_followed():
    """The branch reads the result of the ReLU, which overwrites its input, as in pre-activation networks."""

    def forward(net, x):
        x = net.first(x)
        y = net.one(F.relu_(x))
        return net.last(y + x)

    model = Calls(
        forward, first=nn.Conv2d(1, 3, 1), one=nn.Conv2d(3, 3, 3, padding=1), last=nn.Conv2d(3, 1, 3)
    ).double()
    model.first.bias.data = torch.tensor([0.1, -1.0, 0.3]).double()
    model.one.bias.data.zero_()
    in_use = only(model, first=[(0, 0)], one=[(0, 0)], last=[(0, 0), (0, 1)])
    assert left(check(model, image(), in_use)[1]) == {"first": 1, "one": 1, "last": 1}


def test_views_that_are_overwritten():
    def forward(net, x):
        x = net.first(x)
        y = F.relu_(x.view(x.size(0), -1))
        return net.last(x).flatten(1) + y.mean()

    model = Calls(forward, first=nn.Conv2d(1, 3, 1), last=nn.Conv2d(3, 1, 3)).double()
    report = check(model, image(), only(model, last=[(0, 0)]))[1]
    assert report.reason == "relu_ overwrites first, which is read again"
    assert str(report) == f"No channels were removed: {report.reason}."
    model = Calls(
        lambda net, x: net.last(torch.mul(net.first(x), 2, out=net.maps)),
        first=nn.Conv2d(1, 3, 1),
        last=nn.Conv2d(3, 1, 3),
    ).double()
    model.register_buffer("maps", torch.zeros(2, 3, 6, 6).double())
    assert remove_dead_channels(model, image())[1].reason == "mul overwrites maps"


def test_networks_that_change_when_they_run():
    model = Calls(lambda net, x: net.conv(x) + net.calls.add_(1), conv=nn.Conv2d(1, 2, 1)).double()
    model.register_buffer("calls", torch.zeros(1).double())
    network, report = remove_dead_channels(model, image())
    assert report.reason == "the traced network computes another result than the network"
    assert model.calls == 0
    assert torch.equal(network(image()), model(image()))


def test_sizes_that_are_read():
    """Numbers of channels are those of the network; other sizes are those of the input."""

    def forward(net, x):
        x = net.first(x).relu()
        share = x.shape[1] / 2 + x.size(1) - x.size(dim=-3)
        x = net.second(x)
        tokens = x.flatten(2).transpose(1, 2)
        return net.last(tokens.sum(1) / tokens.size(1)) * share

    model = Calls(forward, first=nn.Conv2d(1, 4, 3), second=nn.Conv2d(4, 2, 1), last=nn.Linear(2, 1)).double()
    network, report = check(model, image(), only(model, second=[(0, 1)]))
    assert left(report) == {"first": 1, "second": 2, "last": 1}
    with torch.no_grad():
        torch.testing.assert_close(network(image(size=9)), model(image(size=9)))


def test_networks_that_cannot_be_traced():
    model = Calls(
        lambda net, x: net.last(x if x.sum() > 0 else -x), first=nn.Conv2d(1, 3, 1), last=nn.Conv2d(1, 2, 3)
    ).double()
    network, report = check(model, image())
    assert report.layers == ()
    assert report.params_after == report.params_before
    assert report.reason.startswith("the network cannot be traced: symbolically traced variables")
    with pytest.raises(WiringError, match="for evaluation only; train the network it was made from"):
        network.train()


def test_numbers_drawn_while_tracing_are_noticed():
    model = Calls(lambda net, x: net.conv(x) + torch.randn(1), conv=nn.Conv2d(1, 2, 1)).double()
    report = remove_dead_channels(model, image())[1]
    assert report.reason == "the traced network computes another result than the network"


def test_other_arguments_have_their_defaults():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 1, 1)

        def forward(self, x, mask=None, features=False):
            x = self.conv(x)
            x = x if mask is None else x * mask
            return x if features else {"out": self.last(x)}

    model = Network().double()
    assert left(check(model, image(), only(model, last=[(0, 0)]))[1]) == {"conv": 1, "last": 1}


def test_a_single_layer_is_a_network():
    layer = nn.Conv2d(1, 2, 3).double()
    in_use = {"weight": torch.ones_like(layer.weight, dtype=torch.bool)}
    assert [row.after for row in check(layer, image(), in_use)[1].layers] == [2]


def test_the_model_is_as_before():
    model = torchvision.models.resnet18(num_classes=3)
    in_use = select(model, 0.1, 0)
    model.layer1.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    gradients = [parameter.requires_grad for parameter in model.parameters()]
    example = torch.randn(2, 3, 32, 32)
    copied, state = example.clone(), torch.get_rng_state()
    network, _ = remove_dead_channels(model, example, in_use)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(example, copied)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == gradients
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    ours = {value.data_ptr() for value in network.state_dict().values()}
    assert not ours & {value.data_ptr() for value in model.state_dict().values()}
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.skipif(torch.__version__ < "2.7", reason="torch 2.6 does not pickle traced networks")
def test_copies_and_files():
    model = chain(nn.ReLU())
    network, _ = check(model, image(), only(model, **EDGES))
    buffer = io.BytesIO()
    torch.save(network, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(network), torch.load(buffer, weights_only=False)):
        assert torch.equal(other(image()), network(image()))
        other.load_state_dict(network.state_dict())
        with pytest.raises(WiringError, match="evaluation only"):
            other.train()
        assert other.eval() is other


def test_wrong_requests():
    model = chain(nn.ReLU())
    mask = torch.ones(4, 1, 3, 3, dtype=torch.bool)
    with pytest.raises(
        WiringError,
        match=r"in_use has 0.weigth, which is not a weight of the network; did you mean 0.wei",
    ):
        remove_dead_channels(model, image(), {"0.weigth": mask})
    with pytest.raises(
        WiringError, match=r"in_use of 0.weight must be boolean, of shape \(4, 1, 3, 3\); it is .*int"
    ):
        remove_dead_channels(model, image(), {"0.weight": mask.long()})
    with pytest.raises(
        WiringError, match=r"must be boolean, of shape \(4, 1, 3, 3\); it is .*of shape \(1, 4, 3, 3\)"
    ):
        remove_dead_channels(model, image(), {"0.weight": mask.transpose(0, 1)})
    with pytest.raises(
        WiringError, match=r"36 weights of 0.weight are not in use and not zero; set them to zero"
    ):
        remove_dead_channels(model, image(), {"0.weight": ~mask})
    with pytest.raises(
        WiringError, match=r"does not run on an example of shape \(2, 3, 6, 6\): .*expected input"
    ):
        remove_dead_channels(model, image(3))
    with pytest.raises(WiringError, match="example must be one batch of inputs, a tensor; it is a tuple"):
        remove_dead_channels(model, (2, 1, 6, 6))
    generator = nn.Sequential(nn.Conv2d(1, 1, 1))
    generator.lines = (line for line in ())
    with pytest.raises(WiringError, match=r"cannot be copied \(copy.deepcopy\): cannot pickle"):
        remove_dead_channels(generator, image())
