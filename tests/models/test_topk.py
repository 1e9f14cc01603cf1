"""Selection: exact counts, ties, types; the straight-through gradient; the swap claim of the paper."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from genutil.exceptions import NotFiniteError
from tests.helpers.examples import examples
from wirings import topk, topk_cpu
from wirings.selection import EdgeSelection, straight_through
from wirings.topk import (
    Selector,
    choose_top_edges,
    num_kept,
    top_mask,
    top_mask_by_row,
)

FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def by_definition(weight, count):
    """Sort by falling magnitude; of equals the lower index comes first; mark the first `count`."""
    values = weight.flatten().double().abs().tolist()
    order = sorted(range(len(values)), key=lambda index: (-values[index], index))
    mask = torch.zeros(len(values), dtype=torch.bool)
    mask[order[:count]] = True
    return mask.view(weight.shape)


SOME = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e30, 1e30), st.just(-0.0))
WEIGHTS = npst.arrays(
    np.float64,
    npst.array_shapes(min_dims=1, max_dims=4, max_side=9),
    # few distinct values, so that ties are the rule; and wild ones
    elements=SOME,
)


ROWS = npst.arrays(np.float64, npst.array_shapes(min_dims=2, max_dims=3, max_side=7), elements=SOME)


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data(), values=WEIGHTS)
@examples(60)
def test_selection_is_the_definition(dtype, data, values):
    weight = torch.from_numpy(values).to(dtype)
    count = data.draw(st.integers(0, weight.numel()))
    mask = top_mask(weight, count)
    assert mask.dtype == torch.bool
    assert int(mask.sum()) == count
    assert torch.equal(mask, by_definition(weight, count))
    on_device = topk._select_on_device(weight.flatten(), count)  # what runs on a GPU gives the same
    assert torch.equal(mask, on_device.view(weight.shape))
    used = weight.where(mask, torch.zeros_like(weight))
    for selection in (EdgeSelection.from_mask(mask), Selector(count).select(weight)):
        assert selection.count == count
        assert torch.equal(selection.apply(weight), used)


@pytest.mark.parametrize("dtype", FLOATS)
@given(
    data=st.data(),
    values=npst.arrays(np.float64, npst.array_shapes(min_dims=2, max_dims=3, max_side=7), elements=SOME),
)
@examples(40)
def test_selection_by_row_is_the_selection_of_each_row(dtype, data, values):
    weight = torch.from_numpy(values).to(dtype)
    count = data.draw(st.integers(0, weight[0].numel()))
    expected = torch.stack([by_definition(row, count) for row in weight])
    assert torch.equal(top_mask_by_row(weight, count), expected)
    assert torch.equal(topk._select_on_device(weight.flatten(1), count), expected.flatten(1))


@given(values=WEIGHTS, seed=st.integers(0, 2**32 - 1), part=st.floats(0, 1))
@examples(60)
def test_a_selector_that_has_seen_other_weights_finds_the_same(values, seed, part):
    weight = torch.from_numpy(values)
    count = int(part * weight.numel())
    selector = Selector(count)
    generator = torch.Generator().manual_seed(seed)
    for scale in (0.0, 1e-3, 10.0, 0.0, torch.inf):
        weight = weight + scale * torch.randn(weight.shape, dtype=weight.dtype, generator=generator)
        weight = weight.nan_to_num(1.0, 2.0, 3.0)
        selection = selector.select(weight)
        assert torch.equal(selection.apply(weight), weight * by_definition(weight, count))
        assert torch.equal(selection.mask(), by_definition(weight, count))


def test_in_steady_training_little_more_is_ranked_than_chosen(monkeypatch):
    scanned = []
    real = topk_cpu._scan
    monkeypatch.setattr(topk_cpu, "_scan", lambda *a: scanned.append(real(*a)) or scanned[-1])
    selector, weight = Selector(5_000), torch.randn(400, 500)
    for _ in range(20):
        selector.select(weight)
        weight += 1e-4 * torch.randn_like(weight)
    assert len(scanned) == 20
    assert all(places.size < 1.02 * 5_000 for places, _, _ in scanned[3:])
    selector = Selector(50_000)  # from a tenth on, the threshold alone is searched for
    for _ in range(3):
        selector.select(weight)
        weight += 1e-4 * torch.randn_like(weight)
    scanned.clear()
    for _ in range(20):
        kept = selector.select(weight).apply(weight)
        assert int((kept != 0).sum()) == 50_000
        weight += 1e-4 * torch.randn_like(weight)
    assert len(scanned) == 20
    assert all(places.size < 0.04 * 50_000 for places, _, _ in scanned)  # on both sides of the border


def test_ties_go_to_the_lowest_index():
    weight = torch.tensor([[1.0, -2.0, 2.0], [2.0, -1.0, 2.0]])
    assert top_mask(weight, 3).tolist() == [[False, True, True], [True, False, False]]


def test_infinite_weights_are_the_strongest():
    assert top_mask(torch.tensor([1.0, -torch.inf, 2.0]), 1).tolist() == [False, True, False]


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_nan_is_refused(rate):
    weight = torch.randn(5, 4)
    weight[2, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        choose_top_edges(weight, rate)
    with pytest.raises(NotFiniteError):
        top_mask(weight, num_kept(20, rate))
    with pytest.raises(NotFiniteError):
        top_mask_by_row(weight, num_kept(4, rate))


@pytest.mark.parametrize("count", [0, 1, 7, 20])
def test_nan_spreads_on_a_gpu(count):
    """There nothing waits for the device, so nothing can be raised; the loss shows it."""
    weight = torch.randn(20)
    weight[7] = torch.nan
    mask = topk._select_on_device(weight, count)
    assert straight_through(weight, mask).sum().isnan()


def test_a_sum_that_overflows_is_no_nan():
    weight = torch.full((5,), 3e38)
    assert int(top_mask(weight, 2).sum()) == 2


def test_rates():
    weight = torch.randn(8, 10)
    assert torch.equal(choose_top_edges(weight, 0.0), weight)
    assert torch.equal(choose_top_edges(weight, 1.0), torch.zeros_like(weight))
    for rate in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"prune_rate must be within 0\.\.1"):
            choose_top_edges(weight, rate)
    with pytest.raises(ValueError, match="cannot select 81 of 80"):
        top_mask(weight, 81)
    with pytest.raises(ValueError, match="cannot select 11 of 10"):
        top_mask_by_row(weight, 11)


@pytest.mark.parametrize(
    ("numel", "rate", "kept"), [(640_000, 0.95, 32_000), (10, 0.77, 3), (3, 0.5, 2), (0, 0.5, 0)]
)
def test_number_kept(numel, rate, kept):
    assert num_kept(numel, rate) == kept


def test_empty_and_strided_weights():
    assert top_mask(torch.empty(0, 3), 0).shape == (0, 3)
    weight = torch.randn(6, 5).t()
    assert torch.equal(top_mask(weight, 7), by_definition(weight, 7))


def test_the_mask_shares_nothing_with_the_weight():
    weight = torch.randn(4, 4)
    before = weight.clone()
    mask = top_mask(weight, 16)
    mask[:] = False
    assert torch.equal(weight, before)
    chosen = choose_top_edges(weight, 0.0)
    chosen.add_(1)
    assert torch.equal(weight, before)


def test_straight_through_gradient_on_four_by_four():
    """∂L/∂w is full; ∂L/∂z goes over the edges in use alone."""
    weight = torch.arange(1.0, 17.0).reshape(4, 4).requires_grad_()
    sources = torch.tensor([1.0, -2.0, 3.0, 0.5], requires_grad=True)
    g = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    used = choose_top_edges(weight, 0.75)  # keeps 13, 14, 15, 16: the last row
    assert used.tolist() == [[0.0] * 4] * 3 + [[13.0, 14.0, 15.0, 16.0]]
    (used @ sources).backward(g)
    assert torch.equal(weight.grad, torch.outer(g, sources.detach()))
    assert torch.equal(sources.grad, 1000 * torch.tensor([13.0, 14.0, 15.0, 16.0]))


def test_unused_infinite_weights_leave_plain_zeros():
    weight = torch.tensor([-torch.inf, -1.0, 2.0])
    for selection in (EdgeSelection.from_mask(torch.zeros(3, dtype=torch.bool)), Selector(0).select(weight)):
        used = straight_through(weight, selection)
        assert used.tolist() == [0.0, 0.0, 0.0]
        assert not torch.signbit(used).any()


def swaps(seed, alpha):
    """(w̃_i ⟨Z_i, g⟩, w̃_j ⟨Z_j, g⟩) of each edge i that replaced an edge j as the claim has it."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(6, 9, dtype=torch.float64, generator=generator)  # 6 sources, maps of 9 pixels
    weight = torch.randn(6, dtype=torch.float64, generator=generator).requires_grad_()
    wish = torch.randn(9, dtype=torch.float64, generator=generator)
    before = choose_top_edges(weight, 0.5)
    (-(before @ states) @ wish).backward()  # ∂L/∂I = −wish
    updated = (weight - alpha * weight.grad).detach()
    old, new = before.detach() != 0, top_mask(updated, 3)
    kept_sign = updated * weight.detach() > 0
    half = updated.abs() >= 0.5 * weight.detach().abs()
    served = updated * (alpha * states @ wish)
    return [
        (served[i], served[j])
        for i in range(6)
        for j in range(6)
        if new[i] and not old[i] and old[j] and not new[j] and kept_sign[i] and kept_sign[j] and half[j]
    ]


@given(seed=st.integers(0, 2**32 - 1), alpha=st.floats(0.01, 1.0))
@examples(300)
def test_swapped_edges_serve_the_node_better(seed, alpha):
    """Claim of the paper: an edge i that replaces j into the same node serves the node's wish better.

    After an update that keeps both signs, with the removed weight keeping at least half of its magnitude,
    w̃_i ⟨Z_i, g⟩ > w̃_j ⟨Z_j, g⟩ where g = −α ∂L/∂I.
    """
    assert all(replacing > replaced for replacing, replaced in swaps(seed, alpha))


def test_swaps_happen():
    """So that the test of the claim is one."""
    assert sum(len(swaps(seed, 0.1)) for seed in range(300)) > 30


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [1, 60, topk_cpu._SMALL + 40])
def test_nothing_is_selected_where_no_edge_is_kept(size, dtype):
    weight = torch.randn(20, max(size // 20, 1), generator=torch.Generator().manual_seed(0)).to(dtype)
    selector = Selector(0)
    for _ in range(3):  # the selector's last threshold must not mislead the next search
        selection = selector.select(weight)
        assert selection.count == 0
        assert not selection.apply(weight).any()
        assert not selection.mask().any()
    assert not top_mask_by_row(weight, 0).any()
    assert not topk._select_on_device(weight, 0).any()
    weight.requires_grad_()
    used = choose_top_edges(weight, 1.0)
    used.sum().backward()
    assert not used.any()
    assert torch.equal(weight.grad, torch.ones_like(weight))  # every edge may still be chosen later
