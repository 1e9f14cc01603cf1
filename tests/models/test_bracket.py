"""The fast selection is the plain one, also where its sample misleads it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from models.graphs import bracket
from models.graphs.bracket import largest_by_bracket, largest_by_ranking
from models.graphs.topk import top_mask


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(bracket, "_SMALL", 1)
    monkeypatch.setattr(bracket, "_CHUNK", 7)
    monkeypatch.setattr(bracket, "_SAMPLE", 8)


VALUES = npst.arrays(
    np.float32,
    st.integers(8, 200),
    elements=st.one_of(st.integers(-4, 4).map(float), st.floats(-8, 8, width=32)),
)


@given(values=VALUES, part=st.floats(0, 0.25))
@settings(max_examples=300, deadline=None)
def test_the_bracket_gives_what_ranking_gives(values, part):
    bits, count = values.view(np.int32), max(int(part * values.size), 1)
    found = largest_by_bracket(bits, count)
    if found is not None:
        expected = largest_by_ranking(bits, count)
        assert np.array_equal(found[0], expected[0])
        assert found[1] == expected[1]
        assert found[0].sum() == count


@pytest.mark.parametrize("seed", range(5))
def test_random_weights_stay_within_the_bracket(monkeypatch, seed):
    """With real sizes, so that the fast path is the one that runs."""
    monkeypatch.undo()
    generator = np.random.default_rng(seed)
    bits = generator.standard_normal(1 << 18, np.float32).view(np.int32)
    for count in (3, 1_000, 1 << 14, 1 << 16):
        found = largest_by_bracket(bits, count)
        assert found is not None
        assert np.array_equal(found[0], largest_by_ranking(bits, count)[0])


def test_a_sample_that_misleads_costs_time_only(monkeypatch):
    """Every sampled entry is small, all others are large, and the other way round."""
    monkeypatch.undo()
    step = (1 << 18) // bracket._SAMPLE | 1
    for sampled, others in ((1e-3, 1.0), (1.0, 1e-3)):
        weight = torch.full((1 << 18,), others) + 0.01 * torch.rand(1 << 18)
        weight[::step] = sampled + 0.01 * torch.rand(len(weight[::step]))
        count = 1 << 14
        expected, _ = largest_by_ranking(weight.view(torch.int32).numpy(), count)
        assert largest_by_bracket(weight.view(torch.int32).numpy(), count) is None
        assert torch.equal(top_mask(weight, count), torch.from_numpy(expected))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_ties_and_nan_at_real_sizes(monkeypatch, dtype):
    monkeypatch.undo()
    weight = torch.randint(-3, 4, (1 << 18,)).to(dtype)  # a seventh each: the border lies within equal ones
    mask = top_mask(weight, 1 << 14)
    places = (weight.abs() == 3).nonzero().flatten()[: 1 << 14]
    assert torch.equal(mask.nonzero().flatten(), places)
    weight[77_777] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        top_mask(weight, 1 << 14)
