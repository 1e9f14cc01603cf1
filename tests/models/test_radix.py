"""Radix selection by Triton's interpreter: the mask of the selection by sorting, on the CPU."""

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from benchmarks.baseline import by_sorting
from models.graphs.topk import straight_through, top_mask
from tests.helpers.examples import examples
from tests.models.interpreted import interpreted_kernels
from wirings.radix import RadixSelect, is_supported

pytest.importorskip("triton")
KERNELS = "wirings.radix_kernels"
interpreted = interpreted_kernels(KERNELS)


def check(selection, weight, count):
    mask = selection.mask(weight, count)
    assert mask.dtype == torch.bool
    assert mask.shape == weight.shape
    assert torch.equal(mask, top_mask(weight, count))


@given(
    size=st.integers(1, 9000),
    part=st.floats(0, 1),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    values=st.sampled_from(["normal", "heavy", "few", "equal", "zeros", "tiny"]),
    seed=st.integers(0, 99),
)
@examples(15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_weights(interpreted, size, part, dtype, values, seed):
    """Ties at the threshold, zeros, subnormal and infinite numbers, and what does not fill a block."""
    torch.manual_seed(seed)
    weight = torch.randn(size)
    weight = {
        "normal": weight,
        "heavy": weight**9,
        "few": weight.round(),
        "equal": weight.sign() * 0.3,
        "zeros": weight * (torch.rand(size) < 0.1),
        "tiny": weight * 1e-40,
    }[values].to(dtype)
    check(RadixSelect(), weight, max(1, round(part * size)))


@pytest.mark.parametrize("move", [1e-6, 1e-3, 0.3, -2.0])
def test_weights_that_move(interpreted, move):
    """The last threshold is a hint: small moves, large ones and a jump out of its interval."""
    torch.manual_seed(0)
    selection, weight = RadixSelect(), torch.randn(40, 60)
    for _ in range(4):
        check(selection, weight, 120)
        weight = weight * (1 + move) + move * 0.1 * torch.randn_like(weight)


def test_a_warm_start_needs_fewer_passes(interpreted, monkeypatch):
    """Passes that count something: three at first, one for weights that do not change."""
    selection, weight = RadixSelect(), torch.randn(3000)
    added = []
    kernels = __import__(KERNELS, fromlist=["count_keys"])

    class Recorder:
        def __getitem__(self, grid):
            def launch(flat, memory, plan, counts, *rest, **settings):
                before = counts.clone()
                original[grid](flat, memory, plan, counts, *rest, **settings)
                added.append(not torch.equal(before, counts))

            return launch

    original = kernels.count_keys
    monkeypatch.setattr(kernels, "count_keys", Recorder())
    for wanted in (3, 2, 1):  # the second search does not know yet how far the threshold moves
        added.clear()
        selection.mask(weight, 100)
        assert sum(added) == wanted


def test_another_size_and_count(interpreted):
    selection = RadixSelect()
    for shape, count in (((20, 30), 7), ((5000,), 4999), ((3, 4, 1, 1), 12), ((1,), 1)):
        check(selection, torch.randn(shape), count)


def test_ties_go_to_the_lowest_index(interpreted):
    weight = torch.full((2**13,), -0.5)
    mask = RadixSelect().mask(weight, 5000)
    assert mask[:5000].all()
    assert not mask[5000:].any()


def test_infinite_weights_are_the_strongest(interpreted):
    weight = torch.tensor([1.0, -torch.inf, 2.0, torch.inf])
    assert RadixSelect().mask(weight, 2).tolist() == [False, True, False, True]


def test_nan_spreads(interpreted):
    weight = torch.randn(200)
    weight[7] = torch.nan
    assert straight_through(weight, RadixSelect().mask(weight, 3)).sum().isnan()


def test_a_view_that_is_not_contiguous(interpreted):
    weight = torch.randn(60, 50).t()
    assert torch.equal(RadixSelect().mask(weight, 300), by_sorting(weight, 300))


def test_only_gpus_use_it():
    assert not is_supported(torch.randn(4))
