"""Wired networks are compiled, copied, saved, exported and called as any others."""

import copy
import io

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import wirings
from tests.wirings.small_network import IMAGES, network
from wirings.topk import top_mask


def same_results(model, other, inputs=IMAGES):
    """Outputs and gradients."""
    for name, parameter in model.named_parameters():
        parameter.grad = None
        other_parameter = dict(other.named_parameters()).get(name.replace("_orig_mod.", ""))
        if other_parameter is not None:
            other_parameter.grad = None
    found, expected = model(inputs), other(inputs)
    assert torch.allclose(found, expected, atol=1e-5)
    found.square().sum().backward()
    expected.square().sum().backward()
    gradients = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        expected = gradients[name.replace("_orig_mod.", "").removeprefix("module.")].grad
        assert torch.allclose(parameter.grad, expected, atol=1e-4), name


@pytest.mark.parametrize("budget", ["uniform", "global"])
@pytest.mark.parametrize("rule", ["dnw", "random", "dnw_no_update"])
def test_compiled_in_one_piece(rule, budget):
    if budget == "global" and rule == "random":
        pytest.skip("random edges have no ranks")
    model = network()
    wirings.wire(model, rule, density=0.2, budget=budget)
    compiled = torch.compile(copy.deepcopy(model), backend="aot_eager", fullgraph=True)
    same_results(compiled, model)
    with torch.no_grad():  # the wiring follows the weights, also in compiled code
        for changed in (model, compiled):
            for parameter in changed.parameters():
                parameter.neg_().add_(0.01)
    same_results(compiled, model)


def test_deepcopy_and_pickle():
    model = network()
    wirings.wire(model, density=0.2)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin[0].weight.mul_(-3).add_(0.05)
    expected = {name: top_mask(twin.get_parameter(name), int(mask.sum()))
                for name, mask in wirings.Wiring(twin).adjacency().items()}  # fmt: skip
    for name, mask in wirings.Wiring(twin).adjacency().items():
        assert torch.equal(mask, expected[name]), name
    assert twin[0].wiring.weight is twin[0].weight is not model[0].weight
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    assert torch.equal(loaded.eval()(IMAGES), model.eval()(IMAGES))


@pytest.mark.parametrize("budget", ["uniform", "global"])
def test_copies_with_each_budget_are_independent(budget):
    model = network()
    wiring = wirings.wire(model, density=0.2, budget=budget)
    before = wiring.state()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin[0].weight.mul_(100)
    changed = wirings.Wiring(twin)
    assert wiring.churn(before)["total"] == 0
    assert (changed.churn(before)["total"] > 0) == (budget == "global")
    assert changed.summary().total.in_use == wiring.summary().total.in_use


def test_autocast_and_gradient_checkpointing():
    model = network()
    wirings.wire(model, density=0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(IMAGES)
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), model(IMAGES), atol=0.1)
    expected = model(IMAGES)
    expected.sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    recomputed = checkpoint(model, IMAGES, use_reentrant=False)
    recomputed.sum().backward()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-6)


def test_exported_program():
    model = network().eval()
    wirings.wire(model, density=0.2)
    program = torch.export.export(model, (IMAGES,))
    assert torch.allclose(program.module()(IMAGES), model(IMAGES), atol=1e-6)


def test_functional_call_and_replaced_parameters():
    model = network()
    wiring = wirings.wire(model, density=0.2)
    other = {name: torch.randn_like(value) for name, value in model.named_parameters()}
    twin = copy.deepcopy(model)
    twin.load_state_dict({**twin.state_dict(), **other})
    assert torch.allclose(torch.func.functional_call(model, other, (IMAGES,)), twin(IMAGES), atol=1e-5)
    state = {name: value.clone() for name, value in twin.state_dict().items()}
    model.load_state_dict(state, assign=True)
    assert torch.equal(wiring.adjacency()["6.weight"], wirings.Wiring(twin).adjacency()["6.weight"])
    assert next(iter(model.double().parameters())).dtype == torch.float64
    assert wiring.rules["0.weight"].weight.dtype == torch.float64
