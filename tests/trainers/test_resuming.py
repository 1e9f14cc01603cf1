"""Optimizer states of files whose network lists its parameters in another order."""

import copy

import pytest
import torch
from torch import nn

from trainers.resuming import _restore_optimizer


def trained(model, **settings):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, **settings)
    model(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    return optimizer


class Ours(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, values):
        return self.second(self.first(values))


def test_momentum_is_matched_by_name():
    """A network that was written in another order has its parameters in that order."""
    torch.manual_seed(0)
    model = Ours()
    saved = trained(model).state_dict()
    theirs = ["second.weight", "second.bias", "first.weight", "first.bias"]
    places = [[name for name, _ in model.named_parameters()].index(name) for name in theirs]
    foreign = copy.deepcopy(saved)
    foreign["state"] = {number: saved["state"][place] for number, place in enumerate(places)}
    weights = {f"module.{name}": model.state_dict()[name] for name in theirs}
    fresh = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    _restore_optimizer(fresh, model, {"model": weights, "optimizer": foreign})
    for number, parameter in enumerate(model.parameters()):
        assert torch.equal(
            fresh.state[parameter]["momentum_buffer"], saved["state"][number]["momentum_buffer"]
        )


def test_settings_are_those_of_the_experiment():
    model = Ours()
    saved = trained(model, weight_decay=0.5).state_dict()
    for key in ("foreach", "fused", "maximize", "differentiable"):  # torch 1.0 knew none of them
        del saved["param_groups"][0][key]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.8, weight_decay=0.1, foreach=True)
    _restore_optimizer(optimizer, model, {"model": model.state_dict(), "optimizer": saved})
    (group,) = optimizer.param_groups
    assert (group["momentum"], group["weight_decay"], group["foreach"]) == (0.8, 0.1, True)
    optimizer.step()


def test_momentum_of_another_shape_is_refused():
    model = Ours()
    saved = trained(model).state_dict()
    saved["state"][1]["momentum_buffer"] = torch.zeros(4)
    with pytest.raises(ValueError, match=r"the momentum of first\.bias has shape \[4\]"):
        _restore_optimizer(
            torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
            model,
            {"model": model.state_dict(), "optimizer": saved},
        )
