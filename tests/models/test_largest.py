"""The fast search finds what ranking finds, also where its bound misleads it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from models.graphs.topk import top_mask
from tests.helpers.examples import examples
from wirings import topk_cpu
from wirings.topk_cpu import find_largest, find_threshold

SOME = st.one_of(st.integers(-4, 4).map(float), st.floats(-8, 8, width=32), st.just(-np.inf))
VALUES = npst.arrays(np.float32, st.integers(1, 200), elements=SOME)
SIZES = {"_SMALL": 1, "_CHUNK": 7, "_CHUNKS": 3, "_SAMPLE": 8}
"""So that a few numbers are sampled and scanned in chunks."""


def by_definition(values, count):
    """Order by falling magnitude, equal ones as they come; take the first."""
    return np.sort(np.argsort(-np.abs(values), kind="stable")[:count])


@given(values=VALUES, data=st.data())
@examples(400)
def test_the_largest_are_those_of_the_definition(values, data):
    with pytest.MonkeyPatch.context() as patch:
        for name, size in SIZES.items():
            patch.setattr(topk_cpu, name, size)
        count = data.draw(st.integers(0, values.size))
        guess = data.draw(st.none() | st.just(np.inf) | st.floats(0, 9, width=32))
        places, threshold = find_largest(values, count, guess)
        assert np.array_equal(places, by_definition(values, count))
        assert threshold == (np.abs(values[places]).min() if count else np.inf)
        values[data.draw(st.integers(0, values.size - 1))] = np.nan
        assert find_largest(values, count, guess) is None


@given(values=VALUES, data=st.data())
@examples(400)
def test_the_cut_is_the_border_of_the_largest(values, data):
    with pytest.MonkeyPatch.context() as patch:
        for name, size in SIZES.items():
            patch.setattr(topk_cpu, name, size)
        count = data.draw(st.integers(0, values.size))
        band = data.draw(st.none() | st.tuples(st.floats(0, 9, width=32), st.floats(0, 9, width=32)))
        threshold, excluded = find_threshold(values, count, band)
        places = by_definition(values, count)
        assert threshold == (np.abs(values[places]).min() if count else np.inf)
        reached = np.flatnonzero(np.abs(values) >= threshold) if count else places
        assert np.array_equal(np.setdiff1d(reached, places), excluded)
        values[data.draw(st.integers(0, values.size - 1))] = np.nan
        assert find_threshold(values, count, band) is None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_weights_lie_above_the_sampled_bound(seed, dtype, monkeypatch):
    values = np.random.default_rng(seed).standard_normal(1 << 18).astype(dtype)
    scans = []
    real = topk_cpu._scan
    monkeypatch.setattr(topk_cpu, "_scan", lambda *a: scans.append(real(*a)) or scans[-1])
    counts = (3, 1_000, 1 << 14, 1 << 17)
    for count in counts:
        assert np.array_equal(find_largest(values, count).indices, by_definition(values, count))
    assert len(scans) == len(counts)
    assert scans[2][0].size < 1.25 * counts[2]  # little more is ranked


def test_a_sample_that_misleads_costs_time_only():
    """Every sampled number is small, all others are large, and the other way round."""
    step = (1 << 18) // topk_cpu._SAMPLE | 1
    for sampled, others in ((1e-3, 1.0), (1.0, 1e-3)):
        values = np.float32(others + 0.01 * np.random.default_rng(0).random(1 << 18))
        values[::step] = sampled + 0.01 * np.random.default_rng(1).random(len(values[::step]))
        for count in (1 << 14, 1 << 17):
            assert np.array_equal(find_largest(values, count).indices, by_definition(values, count))


@pytest.mark.parametrize("guess", [0.0, 2.0, 9.0])
def test_a_guess_may_be_wrong(guess):
    values = np.random.default_rng(0).standard_normal(1 << 18).astype(np.float32)
    assert np.array_equal(find_largest(values, 1 << 12, guess).indices, by_definition(values, 1 << 12))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_ties_and_nan_at_real_sizes(dtype):
    weight = torch.randint(-3, 4, (1 << 18,)).to(dtype)  # a seventh each: the border lies within equal ones
    mask = top_mask(weight, 1 << 14)
    places = (weight.abs() == 3).nonzero().flatten()[: 1 << 14]
    assert torch.equal(mask.nonzero().flatten(), places)
    weight[77_777] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        top_mask(weight, 1 << 14)
