"""Edge rules on a GPU: the wiring and the weights are those of the CPU."""

import pytest
import torch

import wirings
from tests.helpers.rule_training import FREE, Small, sgd, train
from wirings.rules import options_of
from wirings.wiring import Wiring

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("rule", FREE)
def test_a_rule_trains_as_on_the_cpu(rule, device):
    """In float64, where sums in another order do not change the ranking of these weights."""
    own = {"update_interval": 2} if "update_interval" in options_of(rule) else {}
    trained: list[Wiring] = []
    for place in (torch.device("cpu"), device):
        torch.manual_seed(0)
        model = Small()
        wiring = wirings.wire(model, rule, 0.2, **own)
        model.to(place).double()
        train(model, wiring, sgd(model), range(12))
        trained.append(wiring)
    expected, found = (wiring.adjacency() for wiring in trained)
    for name, mask in expected.items():
        assert torch.equal(found[name].cpu(), mask)
        weights = (wiring.rules[name].weight.detach().cpu() for wiring in trained)
        torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-9)
