"""Edge rules: what is in use, what the gradient reaches, and when the selection is made again."""

import copy
import inspect
import io

import pytest
import torch

from models.graphs.edges import (
    AllEdges,
    EdgeRule,
    FixedTopEdges,
    PotentialEdges,
    RandomEdges,
    TargetedDropout,
    TargetedDropoutByRow,
    TopEdges,
    TopEdgesWithoutUpdate,
    locate_rule,
)
from wirings import selection_cache
from wirings.rules import COMMON_ARGUMENTS, RULES, find_rule, has_fixed_wiring, options_of, rule_name
from wirings.topk import Selector, top_mask


def potential(readable=None, acyclic=True):
    return PotentialEdges(12, 10, num_inputs=2, num_outputs=4, acyclic=acyclic, readable_mask=readable)


def test_rules_by_name():
    assert set(RULES) >= {"dnw", "random", "complete", "dnw_no_update", "fine_tune", "td", "reg_td"}
    assert len({locate_rule(name) for name in RULES}) == len(RULES)
    with pytest.raises(ValueError, match="graph must be one of ac_dc, chts, complete, dnw"):
        locate_rule("nothing")
    with pytest.raises(ValueError, match=r"is not a subclass of wirings\.rules\.base\.EdgeRule"):
        locate_rule("torch.nn:Linear")
    with pytest.raises(ValueError, match=r"edges:EdgeRule must define select\(\)"):
        locate_rule("models.graphs.edges:EdgeRule")


@pytest.mark.parametrize("name", RULES)
def test_facts_that_are_read_from_the_source_are_those_of_the_class(name):
    rule_class = find_rule(name)
    assert rule_name(rule_class) == name
    arguments = inspect.signature(rule_class).parameters
    assert options_of(name) == tuple(key for key in arguments if key not in COMMON_ARGUMENTS)
    assert has_fixed_wiring(name) is rule_class.has_fixed_wiring
    assert rule_class.has_fixed_wiring == (name in ("random", "fine_tune"))


def test_dnw_counts_and_gradients():
    rule = TopEdges(potential(), num_edges=30)
    used = rule()
    assert used.shape == (12, 10, 1, 1)
    assert int((used != 0).sum()) == 30 == int(rule.in_use().sum())
    used.sum().backward()
    assert torch.equal(rule.weight.grad, torch.ones_like(rule.weight))


def test_complete_uses_every_edge():
    rule = AllEdges(potential(), num_edges=120)
    assert rule() is rule.weight
    assert rule.in_use().all()


def test_random_pattern_of_acyclic_graphs():
    """(in, out) = (2, 4): rows [: 4 i] of columns [2 + 4 (i − 1) : …] stay empty for i = 1, 2."""
    rule = RandomEdges(potential(), num_edges=48)
    mask = rule.mask.flatten(1)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert int(mask.sum()) == 120 - 72
    assert not mask[:4, 2:6].any()
    assert not mask[:8, 6:10].any()
    free = RandomEdges(potential(acyclic=False), num_edges=120)
    assert free.mask.all()


def test_random_edges_are_fixed_and_alone_get_gradients():
    rule = RandomEdges(potential(), num_edges=48)
    rule().sum().backward()
    assert torch.equal(rule.weight.grad, rule.mask)
    assert torch.equal(rule.in_use(), rule.mask != 0)
    assert "mask" in rule.state_dict()


def test_readable_scope_never_wastes_an_edge():
    readable = torch.zeros(12, 10, dtype=torch.bool)
    readable[6:, :5] = True
    rule = TopEdges(potential(readable), num_edges=30, edge_scope="readable")
    assert int(rule.in_use().sum()) == 30
    assert (rule.in_use().flatten(1) <= readable).all()
    fewer = TopEdges(potential(readable), num_edges=60, edge_scope="readable")
    assert torch.equal(fewer.in_use().flatten(1), readable)
    with torch.no_grad():
        rule.weight[6:].zero_()  # more readable weights are zero than are left out
    assert rule.in_use().sum() == 30
    assert (rule.in_use().flatten(1) <= readable).all()
    assert set(rule.state_dict()) == {"weight"}
    published = TopEdges(potential(readable), num_edges=30)
    assert not (published.in_use().flatten(1) <= readable).all()


@pytest.mark.parametrize("options", [{}, {"foreach": True}, {"fused": True}])
def test_selected_again_after_an_optimizer_step(options):
    rule = TopEdges(potential(), num_edges=30)
    optimizer = torch.optim.SGD(rule.parameters(), lr=1.0, momentum=0.9, **options)
    for _ in range(3):
        used = rule()
        assert torch.equal(used != 0, selected_again(rule))
        used.square().sum().backward()
        optimizer.step()


def selected_again(rule):
    return top_mask(rule.weight, 30)


CHANGES = {
    "load_state_dict": lambda rule, new: rule.load_state_dict({"weight": new}),
    "in place": lambda rule, new: rule.weight.detach().copy_(new),
    "data, in place": lambda rule, new: rule.weight.data.copy_(new),
    "data, replaced": lambda rule, new: setattr(rule.weight, "data", new),
    "parameter, replaced": lambda rule, new: setattr(rule, "weight", torch.nn.Parameter(new)),
    "one row, by data": lambda rule, new: rule.weight.data[3].mul_(100),
}


@pytest.mark.parametrize("rule", [TopEdges, TopEdgesWithoutUpdate, TargetedDropout])
def test_selected_once_for_a_whole_evaluation(rule, monkeypatch):
    calls = []
    real = Selector.select
    monkeypatch.setattr(Selector, "select", lambda *a: calls.append(1) or real(*a))
    keys = {"rho": 0.5, "prune_rate": 0.75} if rule is TargetedDropout else {}
    rule = rule(potential(), num_edges=30, **keys)
    for _ in range(3):
        rule()
    assert len(calls) == 3  # in training the weights change all the time
    rule.eval()
    for _ in range(3):
        rule()
    assert len(calls) == 4


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_selected_again_after_any_other_change(change, training):
    rule = TopEdges(potential(), num_edges=30).train(training)
    rule()
    change(rule, torch.randn(12, 10, 1, 1))
    assert torch.equal(rule() != 0, selected_again(rule))


def test_the_selection_is_not_saved():
    rule = TopEdges(potential(), num_edges=30)
    rule()
    assert set(rule.state_dict()) == {"weight"}
    rule.eval()()
    twin = copy.deepcopy(rule)
    assert twin._evaluation_cache._selection is None
    twin.weight.data.neg_().add_(0.1)
    assert torch.equal(twin() != 0, selected_again(twin))
    buffer = io.BytesIO()
    torch.save(rule, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(), rule())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sources", [1, 2, 3, 8])
def test_sums_see_every_type_and_width(dtype, sources):
    weight = torch.randn(4, sources, 1, 1).to(dtype)
    before = selection_cache._sums(weight)
    weight[2, 0] += 1
    assert not any(map(torch.equal, before, selection_cache._sums(weight)))


@pytest.mark.parametrize("rule", [TopEdges, TopEdgesWithoutUpdate])
@pytest.mark.parametrize("dimension", [0, 1])
def test_selected_again_after_a_permutation(rule, dimension):
    """Sums over one dimension alone would not see it."""
    rule = rule(potential(), num_edges=30).eval()
    rule()
    rule.weight.data.copy_(rule.weight.data.flip(dimension))
    assert torch.equal(rule() != 0, selected_again(rule))


def test_selection_in_inference_mode():
    with torch.inference_mode():
        rule = TopEdges(potential(), num_edges=30).eval()
        assert int((rule() != 0).sum()) == 30
        rule.weight.mul_(-1).add_(0.05)
        assert torch.equal(rule() != 0, selected_again(rule))


def test_a_rule_without_select_says_so():
    with pytest.raises(TypeError, match=r"abstract.*select"):
        EdgeRule(potential(), 30)


WEIGHT = torch.tensor([[4.0, -1.0], [0.5, -3.0]]).view(2, 2, 1, 1)
SQUARE = PotentialEdges(2, 2, num_inputs=1, num_outputs=1)


def with_weight(rule):
    rule.weight.data.copy_(WEIGHT)
    return rule


def values(tensor):
    return tensor.detach().flatten().tolist()


def test_without_update_rule_the_gradient_reaches_used_edges_alone():
    rule = with_weight(TopEdgesWithoutUpdate(SQUARE, num_edges=2))
    used = rule()
    assert values(used) == [4, 0, 0, -3]
    used.sum().backward()
    assert values(rule.weight.grad) == [1, 0, 0, 1]
    assert values(rule.mask) == [1, 1, 1, 1]
    with torch.no_grad():
        rule.weight[0, 0] = 0.1  # weaker than edges that were not in use: they come back
    assert values(rule()) == [0, -1, 0, -3]
    rule.mask[1, 1] = 0  # a mask of a published file is honoured
    assert values(rule()) == [0, -1, 0.5, 0]


def test_fine_tuning_fixes_the_strongest_edges_once():
    rule = with_weight(FixedTopEdges(SQUARE, num_edges=2))
    assert rule.in_use().all()
    rule.freeze_wiring()
    with torch.no_grad():
        rule.weight[0, 0] = 0.1
    used = rule()
    assert values(used) == [pytest.approx(0.1), 0, 0, -3]
    used.sum().backward()
    assert values(rule.weight.grad) == values(rule.mask) == [1, 0, 0, 1]
    rule.freeze_wiring()  # from a file that is fine tuned already: its wiring stays
    assert values(rule.mask) == [1, 0, 0, 1]


@pytest.mark.parametrize("magnitude", [False, True])
def test_targeted_dropout_drops_weak_edges_only(magnitude):
    torch.manual_seed(0)
    rule = with_weight(TargetedDropout(SQUARE, num_edges=2, prune_rate=0.5, rho=0.75, td_magnitude=magnitude))
    expected = WEIGHT.abs() if magnitude else WEIGHT
    seen = torch.stack([rule().detach() for _ in range(2000)])
    assert (seen[:, 0, 0] == 4).all()
    assert (seen[:, 1, 1] == expected[1, 1]).all()
    for weak in ((0, 1), (1, 0)):
        values = seen[(slice(None), *weak)].flatten()
        assert (values != 0).double().mean() == pytest.approx(0.25, abs=0.04)
        assert set(values.unique().tolist()) == {0.0, expected[weak].item()}
    rule.eval()
    assert torch.equal(rule(), expected * torch.tensor([[1.0, 0], [0, 1]]).view(2, 2, 1, 1))
    assert set(rule.state_dict()) == {"weight"}


def test_targeted_dropout_by_row():
    """Over the whole matrix both weak edges would be in the first row."""
    rule = TargetedDropoutByRow(SQUARE, num_edges=2, prune_rate=0.5, rho=1.0)
    rule.weight.data.copy_(torch.tensor([[0.2, -0.1], [3.0, -4.0]]).view(2, 2, 1, 1))
    assert values(rule()) == [pytest.approx(0.2), 0, 0, -4]
    whole = TargetedDropout(SQUARE, num_edges=2, prune_rate=0.5, rho=1.0)
    whole.weight.data.copy_(rule.weight.data)
    assert values(whole.eval()()) == [0, 0, 3, -4]


def test_rho_may_be_the_prune_rate_and_must_be_given():
    assert TargetedDropout(SQUARE, num_edges=3, prune_rate=0.3, rho="gamma").rho == 0.3
    with pytest.raises(ValueError, match="needs rho, the probability of dropping a weak edge"):
        TargetedDropout(SQUARE, num_edges=3, prune_rate=0.3, rho=None)
