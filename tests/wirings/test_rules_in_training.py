"""Rules that change during the training: their updates on small tensors, exact counts, exact resume."""

import copy

import pytest
import torch
from torch import nn

import wirings
from tests.helpers.processes import IS_TORCH_2_6
from tests.helpers.rule_training import FREE, Small, sgd, train
from wirings.densities import Cubic
from wirings.errors import WiringError
from wirings.rules import RULES, build_rule, find_rule, options_of
from wirings.rules.ac_dc import AlternatingEdges
from wirings.rules.base import PotentialEdges, Step
from wirings.rules.edge_popup import ScoredEdges
from wirings.rules.feather import FeatherEdges
from wirings.rules.gmp import GradualPruning
from wirings.rules.rigl import GradientGrownEdges
from wirings.rules.set import RandomlyGrownEdges
from wirings.rules.sr_ste import DecayedHiddenEdges
from wirings.rules.srigl import ConstantFanIn
from wirings.rules.st3 import SoftThresholdedEdges
from wirings.rules.top_kast import ExploringEdges
from wirings.topk import top_mask_of

POTENTIAL = PotentialEdges(2, 4, 4, 2)


def with_weights(rule, *rows):
    with torch.no_grad():
        rule.weight.copy_(torch.tensor(rows).view(rule.weight.shape))
    return rule


def step_of(rule, index, total=100):
    return Step(index, total, torch.optim.SGD(rule.parameters(), lr=0.1, momentum=0.9))


def gradient_of(rule, upstream):
    (gradient,) = torch.autograd.grad(rule(), rule.weight, upstream.view(rule.weight.shape))
    return gradient.flatten(1)


UPSTREAM = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
ROWS = ([1.0, -2, 3, -4], [0.5, -6, 0, 2.5])


def test_sr_ste_decays_the_edges_that_are_not_in_use():
    rule = with_weights(DecayedHiddenEdges(POTENTIAL, 3, hidden_decay=0.1), *ROWS)
    assert torch.equal(gradient_of(rule, UPSTREAM), UPSTREAM)
    rule.weight.grad = UPSTREAM.clone().view(rule.weight.shape)
    rule.after_backward(step_of(rule, 0))
    hidden = torch.tensor([[1.0, -2, 0, 0], [0.5, 0, 0, 2.5]])
    assert torch.allclose(rule.weight.grad.flatten(1), UPSTREAM + 0.1 * hidden)


def test_gmp_trains_the_edges_in_use():
    rule = with_weights(GradualPruning(POTENTIAL, 3), *ROWS)
    in_use = torch.tensor([[0.0, 0, 1, 1], [0, 1, 0, 0]])
    assert torch.equal(gradient_of(rule, UPSTREAM), UPSTREAM * in_use)
    assert torch.equal(rule().flatten(1), torch.tensor(ROWS) * in_use)


def test_st3_subtracts_the_threshold_and_restores_the_scale_of_a_row():
    rule = with_weights(SoftThresholdedEdges(POTENTIAL, 3), *ROWS)  # the largest unused magnitude is 2.5
    scales = [1.01 / (0.01 + 7 / 10), 1.01 / (0.01 + 6 / 9)]
    expected = torch.tensor([[0, 0, 0.5 * scales[0], -1.5 * scales[0]], [0, -3.5 * scales[1], 0, 0]])
    assert torch.allclose(rule().flatten(1), expected)
    assert torch.equal(gradient_of(rule, UPSTREAM), UPSTREAM)
    everything = with_weights(SoftThresholdedEdges(POTENTIAL, 8), *ROWS)
    assert torch.allclose(everything().flatten(1), torch.tensor(ROWS))


def test_feather_is_between_soft_and_hard():
    rule = with_weights(FeatherEdges(POTENTIAL, 3, theta=0.25), *ROWS)
    roots = [(3**3 - 2.5**3) ** (1 / 3), -((4**3 - 2.5**3) ** (1 / 3)), -((6**3 - 2.5**3) ** (1 / 3))]
    expected = torch.tensor([[0, 0, roots[0], roots[1]], [0, roots[2], 0, 0]])
    assert torch.allclose(rule().flatten(1), expected)
    factors = torch.tensor([[0.25, 0.25, 1, 1], [0.25, 1, 0.25, 0.25]])
    assert torch.equal(gradient_of(rule, UPSTREAM), UPSTREAM * factors)
    assert FeatherEdges(PotentialEdges(10, 10, 10, 10), 4).unused_gradient == 0.5
    assert FeatherEdges(PotentialEdges(10, 10, 10, 10), 5).unused_gradient == 1.0


def updated(rule, mask, gradient, index=10, total=100):
    """The rule after an update of the weights ROWS with this mask and gradient."""
    rule = with_weights(rule, *ROWS)
    rule.mask.copy_(torch.tensor(mask).view(rule.mask.shape))
    step = step_of(rule, index, total)
    step.optimizer.state[rule.weight]["momentum_buffer"] = torch.ones_like(rule.weight)
    rule.weight.grad = gradient.clone().view(rule.weight.shape)
    rule.after_backward(step)
    return rule, step.optimizer.state[rule.weight]["momentum_buffer"].flatten(1)


MASK = [[1.0, 1, 0, 1], [1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("may_return", "grown", "weights"),
    [
        # 0.5 and 1 are dropped. Largest gradients of edges that are not kept: 8, 7; of unused ones the same.
        (True, [[0.0, 1, 0, 1], [0, 0, 1, 1]], ([1.0, -2, 3, -4], [0.5, -6, 0, 0])),
        (False, [[0.0, 1, 0, 1], [0, 0, 1, 1]], ([1.0, -2, 3, -4], [0.5, -6, 0, 0])),
    ],
)
def test_rigl_grows_the_largest_gradients(may_return, grown, weights):
    rule = GradientGrownEdges(
        POTENTIAL, 4, update_interval=10, drop_fraction=0.6, last_update=1.0, may_return=may_return
    )
    rule, momentum = updated(rule, MASK, -UPSTREAM, index=10)
    assert torch.equal(rule.mask.flatten(1), torch.tensor(grown))
    assert torch.equal(rule.weight.flatten(1), torch.tensor(weights))
    assert rule.weight.grad is None  # the optimizer skips it
    assert torch.equal(momentum == 0, torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1]]).bool())


@pytest.mark.parametrize("may_return", [True, False])
def test_rigl_may_grow_what_it_has_dropped(may_return):
    gradient = torch.tensor([[9.0, 0, 0, 0], [8, 1, 2, 3]])
    rule = GradientGrownEdges(
        POTENTIAL, 4, update_interval=10, drop_fraction=0.6, last_update=1.0, may_return=may_return
    )
    rule, momentum = updated(rule, MASK, gradient)
    expected = MASK if may_return else [[0.0, 1, 0, 1], [0, 0, 1, 1]]
    assert torch.equal(rule.mask.flatten(1), torch.tensor(expected))
    assert bool((momentum == 0).any()) is not may_return
    assert rule.weight.flatten(1)[0, 0] == 1  # keeps its value, also while it is not in use


def test_set_grows_at_random_and_repeats_with_the_seed():
    masks = set()
    for seed in range(20):
        rule = RandomlyGrownEdges(POTENTIAL, 4, update_interval=10, drop_fraction=0.6, last_update=1.0)
        torch.manual_seed(seed % 10)
        rule, _ = updated(rule, MASK, UPSTREAM)
        assert int(rule.mask.sum()) == 4
        assert rule.mask.flatten(1)[0, 1] == rule.mask.flatten(1)[0, 3] == 1  # the strongest stay
        masks.add(tuple(rule.mask.flatten().tolist()))
    assert 2 <= len(masks) <= 10


@pytest.mark.parametrize("train_weights", [False, True])
def test_edge_popup_trains_scores(train_weights):
    rule = ScoredEdges(POTENTIAL, 3, train_weights=train_weights)
    if train_weights:
        with_weights(rule, *ROWS)
    weight = rule.weight.detach().flatten(1)
    with torch.no_grad():
        rule.edge_scores.copy_(torch.tensor([[0.1, -5, 0.3, 0.4], [-0.2, 2, 0, -0.1]]).view(2, 4, 1, 1))
    in_use = torch.tensor([[0.0, 0, 1, 1], [0, 1, 0, 0]])  # the largest scores, not magnitudes
    assert torch.equal(rule().flatten(1), weight * in_use)
    (rule() * UPSTREAM.view(2, 4, 1, 1)).sum().backward()
    assert torch.allclose(rule.edge_scores.grad.flatten(1), UPSTREAM * weight)
    if train_weights:
        assert torch.equal(rule.weight.grad.flatten(1), UPSTREAM * in_use)
    else:
        assert rule.weight.grad is None
        assert torch.allclose(weight.abs(), torch.full((2, 4), (2 / 1.5) ** 0.5))


def test_scores_are_part_of_the_state_and_of_no_unwired_network():
    model, _ = wired("edge_popup")
    assert "0.wiring.edge_scores" in model.state_dict()
    model.load_state_dict(Small().state_dict())
    incomplete = {name: value for name, value in model.state_dict().items() if name != "0.wiring.edge_scores"}
    with pytest.raises(RuntimeError, match=r"Missing key.*0\.wiring\.edge_scores"):
        model.load_state_dict(incomplete)


def test_ac_dc_alternates():
    rule = with_weights(AlternatingEdges(POTENTIAL, 3), *ROWS)
    phases = [rule.is_compressed(step / 100) for step in range(101)]
    expected = [False] * 10 + ([True] * 5 + [False] * 5) * 6 + [True] * 5 + [False] * 10 + [True] * 16
    assert phases == expected
    assert int(rule.mask.sum()) == rule.num_edges == 8
    rule.after_backward(step_of(rule, 9))
    in_use = torch.tensor([[0.0, 0, 1, 1], [0, 1, 0, 0]])
    assert torch.equal(rule.mask.flatten(1), in_use)
    assert rule.num_edges == 3
    rule.after_backward(step_of(rule, 10))
    assert torch.equal(rule.mask.flatten(1), in_use)
    assert torch.equal(rule.weight.flatten(1), torch.tensor(ROWS))
    rule.after_backward(step_of(rule, 14))
    assert torch.equal(rule.weight.flatten(1), torch.tensor(ROWS) * in_use)  # start again at zero
    assert rule.num_edges == 8
    with pytest.raises(WiringError, match="phases must be"):
        AlternatingEdges(POTENTIAL, 3, last_phases=(0.9, 0.8))
    assert AlternatingEdges(POTENTIAL, 3, first_phase=0.0).in_use().sum() == 3


def test_top_kast_trains_more_edges_than_it_uses():
    rule = with_weights(ExploringEdges(POTENTIAL, 2, explored=0.25, update_interval=5, decay=0.1), *ROWS)
    rule.weight.grad = UPSTREAM.clone().view(rule.weight.shape)
    rule.after_backward(step_of(rule, 4))  # the edges are chosen for the next step
    assert torch.equal(rule.in_use().flatten(1), torch.tensor([[0, 0, 0, 1], [0, 1, 0, 0]]).bool())
    rule.weight.grad = UPSTREAM.clone().view(rule.weight.shape)
    rule.after_backward(step_of(rule, 5))
    decayed = torch.tensor([[0.0, 0, 3 + 0.4 * 3, 4 + 0.1 * -4], [0, 6 + 0.1 * -6, 0, 8 + 0.4 * 2.5]])
    assert torch.allclose(rule.weight.grad.flatten(1), decayed)
    with pytest.raises(WiringError, match="explored must be within"):
        ExploringEdges(POTENTIAL, 2, explored=2)


def test_srigl_has_one_fan_in_and_ablates_nodes():
    potential = PotentialEdges(3, 4, 4, 3)
    rule = ConstantFanIn(
        potential, 7, update_interval=10, drop_fraction=1.0, last_update=1.0, min_salient=0.6
    )
    assert rule.mask.flatten(1).sum(1).tolist() == [2, 2, 2]
    weight = torch.tensor([[5.0, 4, 0, 0], [0, 3, 6, 0], [0.1, 0.2, 0, 0]])
    with torch.no_grad():
        rule.weight.copy_(weight.view(rule.weight.shape))
    rule.mask.copy_((weight != 0).float().view(rule.mask.shape))
    gradient = torch.tensor([[0.0, 0, 9, 1], [8, 0, 0, 7], [0, 0, 0, 0.1]])
    rule.weight.grad = gradient.view(rule.weight.shape)
    with torch.no_grad():
        rule.update(3, step_of(rule, 10))
    # of 7, four are kept: 5, 4, 3, 6; by gradient 9, 8, 7 would be grown
    assert rule.mask.flatten(1).tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    assert rule.num_edges == rule.selection().count == 6
    assert rule.weight.flatten(1)[0].tolist() == [5, 4, 0, 0]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 12])
def test_srigl_with_any_number_of_edges(count):
    potential = PotentialEdges(4, 3, 3, 4)
    rule = ConstantFanIn(potential, count, drop_fraction=1.0)
    live = rule.mask.flatten(1).sum(1)
    assert int(live.sum()) == rule.num_edges == count
    assert set(live.tolist()) <= {0.0, max(1.0, count / 4)}
    rule.weight.grad = torch.randn_like(rule.weight)
    with torch.no_grad():
        rule.update(count, step_of(rule, 10))
    assert int(rule.mask.sum()) == rule.num_edges <= count


def test_scores_of_weights_in_any_memory_format():
    layer = nn.Conv2d(8, 6, 3).to(memory_format=torch.channels_last)
    potential = PotentialEdges(6, 8, 8, 6, kernel=(3, 3), layer=layer)
    bound = (6 / ((1 + 5) * 8 * 9)) ** 0.5
    for _ in range(5):
        scores = ScoredEdges(potential, 10).edge_scores
        assert 0.5 * bound < scores.abs().max() <= bound


def test_edge_popup_changes_a_network_that_it_wires_alone():
    model = Small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WiringError, match="edge_popup does not; choose uniform or erk"):
        wirings.wire(model, "edge_popup", 0.2, budget="global")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    wirings.wire(model, "edge_popup", 0.2)
    assert not model[0]._parameters["weight"].requires_grad
    wirings.unwire(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_updates_at_their_steps_alone():
    rule = RandomlyGrownEdges(POTENTIAL, 4, update_interval=10, last_update=0.5)
    assert [index for index in range(100) if rule.is_update(index, 100)] == [10, 20, 30, 40, 50]
    assert rule.replaced_fraction(step_of(rule, 25)) == pytest.approx(0.15)
    assert rule.replaced_fraction(step_of(rule, 50)) == 0
    gradual = RandomlyGrownEdges(
        POTENTIAL, 4, Cubic(first_density=0.8, end=0.75), update_interval=20, last_update=0.5
    )
    assert [index for index in range(100) if gradual.is_update(index, 100)] == [20, 40, 60, 75]


def test_candidates_of_value_zero_come_before_others():
    values = torch.tensor([5.0, 0, 0, 3, 0])
    candidates = torch.tensor([False, True, True, True, False])
    assert top_mask_of(values, candidates, 2).tolist() == [False, True, False, True, False]
    assert top_mask_of(values, candidates, 3).tolist() == candidates.tolist()


def wired(rule, **options):
    torch.manual_seed(0)
    model = Small()
    own = {"update_interval": 2} if "update_interval" in wirings.rules.options_of(rule) else {}
    return model, wirings.wire(model, rule, 0.2, **own, **options)


@pytest.mark.parametrize(
    ("schedule", "budget"),
    [
        *((None, "erk"), ("cubic", "uniform")),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("steps", "erk"), ("cyclic", "uniform"))),
    ],
)
@pytest.mark.parametrize("rule", FREE)
def test_resume_is_exact_and_so_are_the_counts(rule, schedule, budget):
    if schedule is not None and rule in ("random", "complete", "ac_dc"):
        with pytest.raises(WiringError, match=f"rule {rule} does not take a density schedule"):
            wired(rule, schedule=schedule)
        return
    model, wiring = wired(rule, schedule=schedule, budget=budget)
    optimizer = sgd(model)
    train(model, wiring, optimizer, range(7))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    rng = torch.get_rng_state()
    train(model, wiring, optimizer, range(7, 12))
    again, wiring_again = wired(rule, schedule=schedule, budget=budget)
    optimizer_again = sgd(again)
    again.load_state_dict(saved[0])
    optimizer_again.load_state_dict(saved[1])
    torch.set_rng_state(rng)
    train(again, wiring_again, optimizer_again, range(7, 12))
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    if find_rule(rule).has_exact_count and rule not in ("complete", "srigl"):
        assert wiring.summary().total.in_use == wirings.topk.num_kept(3 * 6 * 9 + 96 * 4, 0.8)


@pytest.mark.parametrize("rule", [name for name in RULES if "edge_scope" in options_of(name)])
def test_edges_that_are_not_read_are_not_in_use(rule):
    torch.manual_seed(0)
    readable = torch.ones(6, 8).tril().bool()  # 21 edges; the first node reads one
    potential = PotentialEdges(6, 8, 3, 2, acyclic=True, readable_mask=readable)
    rule_class = find_rule(rule)
    own = {"update_interval": 2} if "update_interval" in options_of(rule) else {}
    for count in (8, 21, 48):
        edges = build_rule(rule_class, potential, count, edge_scope="readable", **own)
        with torch.no_grad():
            edges.weight[readable.logical_not()] = 5  # the largest
            edges.weight[0, 0] = 0  # a score that entries which are not read have, too
        optimizer = torch.optim.SGD(edges.parameters(), lr=0.1, momentum=0.9)
        edges.freeze_wiring()
        for index in range(10):
            optimizer.zero_grad()
            weight = edges().flatten(1)
            # Only readable entries get a gradient.
            (torch.randn(6, 8) * weight * readable).sum().backward()
            step = Step(index, 10, optimizer)
            edges.after_backward(step)
            edges.follow_schedule(step)
            optimizer.step()
            in_use = edges.in_use().flatten(1)
            assert not (in_use & ~readable).any()
            assert int(in_use.sum()) <= 21
            assert int(in_use.sum()) == edges.num_edges or not edges.has_exact_count
        assert edges.num_edges == edges.budget == min(count, 21) or rule == "srigl"


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        *((name, {"schedule": "cubic"}) for name in ("dnw", "gmp", "st3", "edge_popup")),
        *(("soft_topk", {}), ("str", {}), ("rigl", {}), ("dnw", {"schedule": "cubic", "budget": "global"})),
    ],
)
def test_a_changing_number_of_edges_compiles_once(rule, options):
    """In one graph, and a second one of rigl for the steps in which all gradients are needed."""
    if IS_TORCH_2_6 and rule == "soft_topk":
        pytest.skip("torch 2.6 takes minutes to trace the search for the soft mask")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model, wiring = wired(rule, **options)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    optimizer = sgd(model)
    for index in range(9):
        images = torch.randn(4, 3, 6, 6)
        logits = compiled(images)
        torch.testing.assert_close(logits, model(images), rtol=1e-4, atol=1e-6)
        optimizer.zero_grad()
        logits.square().mean().backward()
        wiring.after_backward(optimizer, index, 12)
        optimizer.step()
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs == (2 if rule == "rigl" else 1)


@pytest.mark.parametrize("rule", ["set", "rigl"])
def test_edges_that_are_not_in_use_are_not_trained(rule):
    model, wiring = wired(rule)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for index in range(12):
        before = {name: rule.weight.detach().clone() for name, rule in wiring.rules.items()}
        train(model, wiring, optimizer, [index])
        for name, changed in wiring.rules.items():
            unused = ~changed.in_use()
            grown_or_same = (changed.weight == before[name]) | (changed.weight == 0)
            assert bool(grown_or_same[unused].all())


def test_a_count_that_is_wrong_is_named():
    _, wiring = wired("set")
    wiring.rules["0.weight"].mask.fill_(1)
    with pytest.raises(WiringError, match=r"0\.weight: 162 edges are in use, but the rule set must use 3"):
        wiring.check_counts()
    _, wiring = wired("dnw", budget="global", schedule="cubic")
    wiring.check_counts()
