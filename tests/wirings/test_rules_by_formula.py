"""Rules that are formulas of weights and wiring: str, soft_topk, chts, pwmpr, against direct computations."""

import pytest
import torch

from wirings.densities import Constant
from wirings.errors import WiringError
from wirings.node_matrix import NodeMatrix, path_products
from wirings.rules.base import PotentialEdges, Step
from wirings.rules.chts import PredictedEdges, predicted_edges
from wirings.rules.pwmpr import PathGrownEdges
from wirings.rules.soft_topk import SoftTopEdges, soft_mask
from wirings.rules.str import LearnedThreshold
from wirings.topk import sample_without_replacement

POTENTIAL = PotentialEdges(2, 4, 4, 2)
ROWS = torch.tensor([[1.0, -2, 3, -4], [0.5, -6, 0, 2.5]]) / 10
UPSTREAM = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])


def with_weights(rule, rows=ROWS):
    with torch.no_grad():
        rule.weight.copy_(rows.view(rule.weight.shape))
    return rule


def step_of(rule, index, total=100):
    return Step(index, total, torch.optim.SGD(rule.parameters(), lr=0.1, momentum=0.9))


def test_str_trains_its_threshold():
    rule = with_weights(LearnedThreshold(POTENTIAL, 3))
    with torch.no_grad():
        rule.threshold_logit.fill_(torch.logit(torch.tensor(0.27)))
    (rule() * UPSTREAM.view(2, 4, 1, 1)).sum().backward()
    in_use = torch.tensor([[0.0, 0, 1, 1], [0, 1, 0, 0]])
    assert torch.allclose(rule().flatten(1), torch.tensor([[0, 0, 0.03, -0.13], [0, -0.33, 0, 0]]))
    assert torch.equal(rule.weight.grad.flatten(1), UPSTREAM * in_use)
    slope = 0.27 * 0.73
    assert rule.threshold_logit.grad.item() == pytest.approx(-slope * (3 - 4 - 6), rel=1e-4)
    assert rule.selection().count == 3


def test_the_controller_of_str_moves_towards_the_aimed_number():
    rule = with_weights(LearnedThreshold(POTENTIAL, 3, Constant(), control=0.5, initial_logit=-3.0))
    aimed = torch.logit(torch.tensor(0.25))  # the largest magnitude of the others
    for index in range(30):
        distance = aimed - rule.threshold_logit.detach()
        rule.after_backward(step_of(rule, index))
        assert torch.allclose(aimed - rule.threshold_logit, 0.5 * distance, atol=1e-6)
    assert rule.selection().count in (3, 4)  # the threshold of a float32 is rounded
    published = with_weights(LearnedThreshold(POTENTIAL, 3, control=0.0))
    published.after_backward(step_of(published, 0))
    assert published.threshold_logit.item() == -10


@pytest.mark.parametrize("count", [1, 3, 7])
@pytest.mark.parametrize("scale", [0.1, 1, 40])
def test_a_soft_mask_has_the_wanted_sum(count, scale):
    torch.manual_seed(count)
    values = scale * torch.randn(3, 5, dtype=torch.float64).abs()
    scope = torch.ones(3, 5, dtype=torch.bool)
    scope[0, :2] = False
    mask = soft_mask(values, scope, torch.tensor(count))
    assert abs(float(mask.sum()) - count) <= 1e-5 * count
    assert not mask[~scope].any()
    order = values[scope].argsort()
    assert bool((mask[scope][order].diff() >= 0).all())


def test_soft_topk_has_the_gradient_of_its_soft_mask(monkeypatch):
    monkeypatch.setattr("wirings.rules.soft_topk._TOLERANCE", 1e-12)
    torch.manual_seed(0)
    rule = SoftTopEdges(PotentialEdges(3, 4, 4, 3, kernel=()), 5, Constant(), sharpness=(3.0, 3.0)).double()
    upstream = torch.randn(3, 4, dtype=torch.float64)
    weight = rule.weight.detach().clone()
    scale = 3 / weight.abs().mean()

    def soft(value):  # the mean of |w| counts as constant
        return soft_mask(value.abs() * scale, torch.ones(3, 4).bool(), torch.tensor(5))

    def loss(value):  # without the cut
        return float((value * soft(value) * upstream).sum())

    (gradient,) = torch.autograd.grad(rule(), rule.weight, upstream)
    for index in range(12):
        step = torch.zeros(12, dtype=torch.float64)
        step[index] = 1e-6
        difference = loss(weight + step.view(3, 4)) - loss(weight - step.view(3, 4))
        assert gradient.flatten()[index].item() == pytest.approx(difference / 2e-6, rel=1e-4, abs=1e-7)
    values = rule().detach()
    strongest = weight.abs().flatten().argsort(descending=True)[:5]
    assert set(values.flatten().nonzero().flatten().tolist()) == set(strongest.tolist())
    full = weight * soft(weight)
    assert torch.allclose(values.flatten()[strongest], full.flatten()[strongest])


def test_soft_topk_freezes_its_wiring_without_a_change_of_the_weights_in_use():
    rule = with_weights(SoftTopEdges(POTENTIAL, 3, Constant(), freeze_at=0.5))
    before = rule().detach().clone()
    rule.follow_schedule(step_of(rule, 48))
    assert not rule.frozen
    during = rule().detach().clone()
    assert not torch.equal(before, during)  # the masks are sharper
    rule.follow_schedule(step_of(rule, 49))
    assert rule.frozen
    assert torch.allclose(rule(), during, rtol=1e-2)
    with torch.no_grad():
        rule.weight[0, 0] = 100  # another edge would be the strongest
    frozen = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 0]]).bool()
    assert torch.equal(rule.selection().mask().flatten(1), frozen)
    rule.weight.grad = UPSTREAM.clone().view(rule.weight.shape)
    rule.after_backward(step_of(rule, 50))
    assert torch.equal(rule.weight.grad.flatten(1) != 0, frozen)
    with pytest.raises(WiringError, match="sharpness must be above 0"):
        SoftTopEdges(POTENTIAL, 3, sharpness=(0.0, 1.0))


def test_scores_of_chts_are_those_of_the_definition():
    torch.manual_seed(0)
    mask = torch.rand(5, 6) < 0.4
    expected = torch.zeros(5, 6, dtype=torch.float64)
    sources = {v: {u for u in range(6) if mask[v, u]} for v in range(5)}
    targets = {u: {v for v in range(5) if mask[v, u]} for u in range(6)}
    for v in range(5):
        for u in range(6):
            for z in sources[v] - {u}:
                if shared := targets[u] & targets[z]:
                    expected[v, u] += (1 + len(shared)) / (1 + len(targets[z] - shared))
            for z in targets[u] - {v}:
                if shared := sources[v] & sources[z]:
                    expected[v, u] += (1 + len(shared)) / (1 + len(sources[z] - shared))
    assert torch.allclose(predicted_edges(mask), expected)


def test_chts_removes_the_edges_of_dead_ends():
    # Nodes: 0 and 1 enter, 2 and 3 are inside, 4 leaves. 2 has no incoming edge, so 3 has none that counts.
    potential = PotentialEdges(3, 4, 2, 1)
    rule = PredictedEdges(potential, 4)
    kept = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 1]]).bool().view(3, 4, 1, 1)
    left = rule._without_dead_ends(kept)
    assert left.flatten(1).tolist() == [[False] * 4, [False] * 4, [False, True, False, False]]


def test_sampling_is_without_replacement_and_in_proportion():
    torch.manual_seed(0)
    scores = torch.tensor([0.0, 1, 2, 5, 100])
    candidates = torch.tensor([True, True, True, True, False])
    draws = torch.stack([sample_without_replacement(scores, candidates, 1) for _ in range(4000)]).double()
    assert torch.allclose(draws.mean(0), torch.tensor([0, 1 / 8, 2 / 8, 5 / 8, 0]).double(), atol=0.03)
    for count in range(5):
        assert int(sample_without_replacement(scores, candidates, count).sum()) == count
    assert sample_without_replacement(scores, candidates, 4).tolist() == candidates.tolist()


def acyclic(square):
    """5 nodes: 2 enter, 2 are inside, 1 leaves; as a (5, 5) weight or without rows and columns of zeros."""
    readable = torch.zeros(5, 5).bool()
    readable[2:, :2] = True
    readable[3:, 2] = True
    readable[4, 3] = True
    if square:
        return PotentialEdges(5, 5, 2, 1, acyclic=True, readable_mask=readable)
    return PotentialEdges(3, 4, 2, 1, readable_mask=readable[2:, :4])


@pytest.mark.parametrize("square", [True, False])
def test_pwmpr_grows_along_strong_paths_up_to_the_budget(square):
    potential = acyclic(square)
    rule = PathGrownEdges(potential, 8, first_fraction=0.5, update_interval=10, last_update=0.5)
    assert rule.num_edges == rule.selection().count == 4
    seen = [rule.in_use()]
    for index in range(100):
        rule.after_backward(step_of(rule, index))
        assert rule.selection().count == rule.num_edges
        assert not (seen[-1] & ~rule.in_use()).any()  # edges stay
        seen.append(rule.in_use())
    assert rule.num_edges == 8
    assert [int(mask.sum()) for mask in (seen[9], seen[10], seen[30], seen[50])] == [4, 5, 6, 8]
    assert PathGrownEdges(potential, 100).budget == 9


def test_path_products_are_those_of_all_paths():
    matrix = torch.zeros(5, 5, dtype=torch.float64)
    matrix[2, 0], matrix[2, 1], matrix[3, 2], matrix[3, 1], matrix[4, 2], matrix[4, 3] = 2, 3, 5, 7, 11, 13
    forward, backward = path_products(matrix, torch.zeros(5).bool(), 2, 1)
    assert forward.tolist() == [1, 1, 5, 5 * 5 + 7, 5 * 11 + 32 * 13]
    assert backward[:, 0].tolist() == [2 * (11 + 65), 3 * 76 + 7 * 13, 76, 13, 1]
    assert bool((backward == backward[:, :1]).all())


def test_path_products_of_leaving_nodes_that_send():
    # 0 enters; 1, 2 and 3 are the last group, of which 2 and 3 leave. Their edges end the graph.
    matrix = torch.zeros(4, 4, dtype=torch.float64)
    matrix[1, 0], matrix[2, 0], matrix[3, 0] = 2, 3, 5  # the first states
    matrix[2, 1], matrix[2, 3], matrix[3, 2], matrix[3, 3] = 7, 11, 13, 17
    late = torch.tensor([False, True, True, True])
    forward, backward = path_products(matrix, late, 1, 2)
    assert forward.tolist() == [1, 2, 3, 5]
    assert backward[:, 0].tolist() == [2 * 7 + 3 * (1 + 13) + 5 * (1 + 11 + 17), 7, 1 + 13, 1 + 11 + 17]
    assert backward[2:, 1:].tolist() == [[1, 1, 1], [1, 1, 1]]
    total = (backward * forward * matrix).sum(1)  # each path is counted once at each of its edges
    assert total[1:].sum() == backward[0, 0] + 2 * 7 + 3 * 13 + 5 * 28


def test_pwmpr_samples_by_path_products(monkeypatch):
    scores = []
    monkeypatch.setattr(
        "wirings.rules.pwmpr.sample_without_replacement",
        lambda values, candidates, count: scores.append(values) or torch.zeros_like(candidates),
    )
    rule = PathGrownEdges(acyclic(True), 8, first_fraction=0.5, update_interval=10)
    with torch.no_grad():
        rule.weight.zero_()
        for target, source, value in ((2, 0, -2.0), (2, 1, 3.0), (3, 2, 5.0), (4, 3, 1.0)):
            rule.weight[target, source] = value
            rule.mask[target, source] = 1
    rule.mask.copy_((rule.weight != 0).float())
    rule.after_backward(step_of(rule, 9))
    (values,) = scores
    forward, backward = torch.tensor([1.0, 1, 5, 25, 25]) / 25, torch.tensor([10.0, 15, 5, 1, 1]) / 15
    expected = backward.unsqueeze(1) * forward * acyclic(True).readable_mask
    assert torch.allclose(values.flatten(1).float() * acyclic(True).readable_mask, expected)


@pytest.mark.parametrize(
    "potential",
    [
        POTENTIAL,  # without the mask of what is read
        PotentialEdges(5, 5, 2, 1),
        PotentialEdges(5, 5, 2, 1, readable_mask=torch.ones(5, 5).bool()),
    ],
)
def test_pwmpr_refuses_what_is_not_a_graph_without_cycles(potential):
    with pytest.raises(WiringError, match="rule pwmpr needs a graph without cycles"):
        PathGrownEdges(potential, 3)


def test_a_node_matrix_is_of_graphs_and_stages():
    assert NodeMatrix(acyclic(True)).has_hidden and NodeMatrix(acyclic(False)).has_hidden
    assert NodeMatrix(POTENTIAL).is_graph and not NodeMatrix(POTENTIAL).has_hidden
    assert not NodeMatrix(PotentialEdges(5, 4, 2, 2)).is_graph
    layer = torch.nn.Conv2d(4, 2, 1)
    assert not NodeMatrix(PotentialEdges(2, 4, 4, 2, layer=layer)).is_graph
    weight = torch.arange(12).view(3, 4, 1, 1)
    nodes = NodeMatrix(acyclic(False))
    assert torch.equal(nodes.reduce(nodes.expand(weight)), weight)
    assert nodes.expand(weight)[3, 2] == 6


def test_a_stage_may_have_as_many_rows_as_columns():
    """2 nodes enter, 3 are inside and 2 leave; a whole graph has no readable edges to those that enter."""
    readable = torch.ones(5, 5).tril(1).bool()
    nodes = NodeMatrix(PotentialEdges(5, 5, 2, 2, readable_mask=readable))
    assert (nodes.num_nodes, nodes.first_row, nodes.has_hidden) == (7, 2, True)
    nodes.check_acyclic("pwmpr")
    assert NodeMatrix(PotentialEdges(5, 5, 2, 2)).num_nodes == 5
    without_hidden = torch.ones(4, 4).bool()
    nodes = NodeMatrix(PotentialEdges(4, 4, 4, 4, readable_mask=without_hidden))
    assert (nodes.num_nodes, nodes.has_hidden) == (8, False)
    nodes.check_acyclic("pwmpr")
