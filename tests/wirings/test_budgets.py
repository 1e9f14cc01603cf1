"""Budgets: exact numbers of edges, by layer and in sum."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirings import budgets
from wirings.errors import WiringError

SHAPES = st.dictionaries(
    st.sampled_from([f"layer{number}.weight" for number in range(6)]),
    st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple),
    min_size=1,
)
SMALL = {"conv1.weight": (4, 3, 3, 3), "fc.weight": (10, 20)}


@pytest.mark.parametrize("budget", [budgets.uniform, budgets.erk])
@given(shapes=SHAPES, density=st.floats(0, 1))
def test_the_sum_is_exact_and_no_layer_is_overfull(budget, shapes, density):
    counts = budget(shapes, density)
    assert list(counts) == list(shapes)
    assert sum(counts.values()) == budgets.total_edges(shapes, density)
    for name, shape in shapes.items():
        assert 0 <= counts[name] <= math.prod(shape)


@given(shapes=SHAPES, density=st.floats(0, 1))
def test_uniform_is_within_one_edge_of_the_density(shapes, density):
    part = budgets.total_edges(shapes, density) / sum(map(math.prod, shapes.values()))
    for name, count in budgets.uniform(shapes, density).items():
        assert abs(count - part * math.prod(shapes[name])) <= 1


def test_one_layer_has_the_published_number():
    assert budgets.uniform({"graph.weight": (800, 800, 1, 1)}, 1 - 0.95) == {"graph.weight": 32_000}


def test_erk_by_hand():
    """108 and 200 entries; sums of sizes 13 and 30: a density of 0.1 is 31 edges, in proportion 13 to 30."""
    assert budgets.erk(SMALL, 0.1) == {"conv1.weight": 9, "fc.weight": 22}


def test_erk_fills_small_layers_first():
    shapes = {"small": (2, 2), "large": (100, 100)}
    counts = budgets.erk(shapes, 0.5)
    assert counts == {"small": 4, "large": 4998}


def test_densities_by_pattern():
    budget = budgets.by_pattern({"conv*": 0.5, "*": 0.1})
    assert budget(SMALL, 1.0) == {"conv1.weight": 54, "fc.weight": 20}
    with pytest.raises(
        WiringError, match=r"density of conv2 matches no layer; there are conv1.weight, fc.weight"
    ):
        budgets.by_pattern({"conv2": 0.5, "*": 0.1})(SMALL, 1.0)
    with pytest.raises(WiringError, match=r"no density for fc.weight: none of conv"):
        budgets.by_pattern({"conv*": 0.5})(SMALL, 1.0)
    with pytest.raises(WiringError, match=r"density of conv\* must be within 0..1, got 2"):
        budgets.by_pattern({"conv*": 2})


@pytest.mark.parametrize("density", [-0.1, 1.1, float("nan")])
def test_densities_out_of_range(density):
    for budget in (budgets.uniform, budgets.erk):
        with pytest.raises(WiringError, match=r"density must be within 0\.\.1"):
            budget(SMALL, density)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"conv1.weight": 5}, "has no number of edges for fc.weight"),
        ({"conv1.weight": 5, "fc.weight": 201}, "has 201 edges for fc.weight, which can have 0 to 200"),
        ({"conv1.weight": 5.5, "fc.weight": 1}, "has 5.5 edges for conv1.weight"),
        ({"conv1.weight": 5, "fc.weight": 1, "fc": 1}, "has fc, which is not a layer"),
    ],
)
def test_wrong_counts_of_a_user_s_budget(counts, message):
    with pytest.raises(WiringError, match=message):
        budgets.check_counts(SMALL, counts)


def test_a_stage_of_the_published_mobilenet():
    assert budgets.mobilenet_stage(32, 64, 1, 0.225) == pytest.approx(103.68)


def test_only_stages_of_mobilenet_graphs_have_its_widths():
    with pytest.raises(WiringError, match=r"fc\.weight, \(9, 4\), is not a stage of a MobileNet graph"):
        budgets.mobilenet_width({"fc.weight": (9, 4)}, 0.5)
    assert budgets.mobilenet_width({"fc.weight": (4, 9)}, 0.5) == {"fc.weight": 18}
