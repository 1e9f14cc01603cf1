"""Churn, explored edges and training MACs against direct counts; resuming."""

import pytest
import torch
from torch import nn

import wirings
from wirings.densities import Cubic
from wirings.errors import WiringError
from wirings.history import EdgeHistory
from wirings.profiling import profile
from wirings.rules import build_rule
from wirings.rules.base import PotentialEdges


class Small(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4, bias=False))


def wired(rule, **options):
    torch.manual_seed(0)
    model = Small()
    return model, wirings.wire(model, rule, 0.25, **options)


def train(model, wiring, steps, total, history=None):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for index in steps:
        optimizer.zero_grad()
        model(torch.randn(2, 3, 6, 6)).square().sum().backward()
        wiring.after_backward(optimizer, index, total)
        optimizer.step()
        if history is not None:
            history.count_step()


def test_churn_and_explored_edges():
    _, wiring = wired("dnw")
    history = EdgeHistory(wiring)
    assert history.churn() == {"total": 0}
    history.update()
    assert history.churn()["total"] == 0
    assert history.explored()["total"] == pytest.approx(0.25, abs=1e-3)
    weight = wiring.rules["3.weight"].weight
    first = wiring.rules["3.weight"].in_use().clone()
    with torch.no_grad():  # half of the edges in use change places with others
        moved = first.nonzero()[:48]
        weight[moved[:, 0], moved[:, 1]] = 0
        others = (~first).nonzero()[:48]
        weight[others[:, 0], others[:, 1]] = 5
    history.update()
    assert history.churn() == {"0.weight": 0, "3.weight": 0.5, "total": 48 / (41 + 96)}
    assert history.explored() == {"0.weight": 41 / 162, "3.weight": 144 / 384, "total": (41 + 144) / 546}
    with torch.no_grad():
        weight[others[:, 0], others[:, 1]] = 0
        weight[moved[:, 0], moved[:, 1]] = 5
    history.update()
    assert history.churn()["3.weight"] == 0.5
    assert history.explored()["3.weight"] == 144 / 384


def test_training_macs_of_a_fixed_wiring_and_of_all_gradients():
    for rule, trained in (("random", 41 * 16 + 96), ("dnw", 162 * 16 + 384)):
        model, wiring = wired(rule)
        history = EdgeHistory(wiring)
        train(model, wiring, range(3), 3, history)
        macs = history.training_macs(profile(model, 6).per_layer)
        assert (macs.forward, macs.nodes, macs.weights) == (41 * 16 + 96, 41 * 16 + 96, trained)
        assert macs.total == 2 * (41 * 16 + 96) + trained


def test_training_macs_follow_schedules_updates_and_phases():
    model, wiring = wired("gmp", schedule=Cubic(end=0.5), include="3")
    history = EdgeHistory(wiring)
    expected = [wiring.rules["3.weight"].schedule.num_edges(index / 8, 96, 384) for index in range(8)]
    train(model, wiring, range(8), 8, history)
    assert history.mean_edges() == {"3.weight": (sum(expected) / 8, sum(expected) / 8)}
    macs = history.training_macs(profile(model, 6).per_layer)
    assert macs.weights == 162 * 16 + sum(expected) / 8  # the convolution is dense

    model, wiring = wired("rigl", update_interval=2, include="3")
    history = EdgeHistory(wiring)
    train(model, wiring, range(8), 8, history)  # all gradients in the steps 2, 4 and 6
    assert history.mean_edges() == {"3.weight": (96, (5 * 96 + 3 * 384) / 8)}

    model, wiring = wired("top_kast", explored=0.5, include="3")
    history = EdgeHistory(wiring)
    train(model, wiring, range(2), 2, history)
    assert history.mean_edges() == {"3.weight": (96, 96 + 192)}

    model, wiring = wired("td", rho=0.75, include="3")
    history = EdgeHistory(wiring)
    train(model, wiring, range(2), 2, history)  # and a quarter of the others
    assert history.mean_edges() == {"3.weight": (96 + 72, 96 + 72)}

    model, wiring = wired("ac_dc", first_phase=0.25, phase=0.25, last_phases=(0.75, 0.75), include="3")
    history = EdgeHistory(wiring)
    train(model, wiring, range(8), 8, history)  # dense, compressed, dense, compressed
    assert history.mean_edges()["3.weight"] == (240, 240)


def test_numbers_that_a_rule_does_not_promise_are_those_of_the_last_update():
    _, wiring = wired("dnw", budget="global")
    with torch.no_grad():
        wiring.rules["0.weight"].weight.mul_(100)
    history = EdgeHistory(wiring)
    history.update()
    history.count_step()
    assert history.mean_edges() == {"0.weight": (137, 162), "3.weight": (0, 384)}


def test_cost_of_layers_that_is_not_known():
    model, wiring = wired("dnw")
    history = EdgeHistory(wiring)
    history.count_step()
    layers = profile(model, 6).per_layer
    assert history.training_macs(layers[:1]) is None
    unknown = [wirings.structure.LayerComplexity(layer.name, 1, layer.macs) for layer in layers]
    assert history.training_macs(tuple(unknown)) is None


def test_a_restored_history_goes_on():
    model, wiring = wired("set", update_interval=2)
    history = EdgeHistory(wiring)
    history.update()
    train(model, wiring, range(4), 8, history)
    history.update()
    copy = EdgeHistory(wiring)
    copy.load_state_dict(history.state_dict())
    train(model, wiring, range(4, 6), 8, history)
    for _ in range(2):
        copy.count_step()
    history.update()
    copy.update()
    assert (copy.churn(), copy.explored(), copy.mean_edges()) == (
        history.churn(),
        history.explored(),
        history.mean_edges(),
    )
    _, other = wired("set", include="3")
    with pytest.raises(WiringError, match="it has other layers"):
        EdgeHistory(other).load_state_dict(history.state_dict())
    state = history.state_dict()
    state["last"]["3.weight"] = state["last"]["3.weight"][:-1]
    with pytest.raises(WiringError, match="another size"):
        EdgeHistory(wiring).load_state_dict(state)


@pytest.mark.parametrize("rule", ["dnw", "random", "complete", "ac_dc", "td"])
def test_edges_that_are_not_read_cost_nothing(rule):
    torch.manual_seed(0)
    readable = torch.ones(8, 8).tril(-1).bool()
    options = {"rho": 0.5} if rule == "td" else {}
    potential = PotentialEdges(8, 8, 2, 2, acyclic=True, readable_mask=readable)
    edges = build_rule(rule, potential, 32, **options)
    network = nn.Sequential(edges)
    history = EdgeHistory(wirings.Wiring(network))
    history.update()
    history.count_step()
    read = int((edges.in_use().flatten(1) & readable).sum())
    assert 0 < read < int(edges.in_use().sum())
    used = read + round((28 - read) / 2) if rule == "td" else read
    trained = 28 if rule in ("dnw", "complete") else used
    assert history.mean_edges() == {"0.weight": (used, trained)}
