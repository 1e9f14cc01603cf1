"""EdgeSelection: every form gives the same indices, mask and values; a changed weight is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wirings.errors import WiringError
from wirings.selection import EdgeSelection, apply_selection, masked, straight_through
from wirings.topk import Selector, top_mask
from wirings.topk_cpu import find_threshold


def forms(weight, count):
    """The same selection in each of its forms."""
    mask = top_mask(weight, count)
    return {
        "mask": EdgeSelection.from_mask(mask),
        "mask with count": EdgeSelection.from_mask(mask, count),
        "indices": EdgeSelection.from_indices(mask.flatten().nonzero().flatten(), weight.shape),
        "threshold": EdgeSelection.from_threshold(
            weight, find_threshold(weight.flatten().numpy(), count), count
        ),
    }


@given(
    values=st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 3e38]), min_size=12, max_size=12),
    count=st.integers(1, 12),
    channels_last=st.booleans(),
)
def test_all_forms_are_the_same_selection(values, count, channels_last):
    weight = torch.tensor(values).view(3, 2, 2, 1)
    if channels_last:
        weight = weight.contiguous(memory_format=torch.channels_last)
    mask = top_mask(weight, count)
    other = torch.randn(3, 2, 2, 1)
    for name, selection in forms(weight, count).items():
        assert selection.count == count == int(selection.mask().sum()), name
        assert torch.equal(selection.mask(), mask), name
        assert torch.equal(selection.indices(), mask.flatten().nonzero().flatten()), name
        for tensor in (weight, other):
            assert torch.equal(selection.apply(tensor), tensor.where(mask, torch.zeros(()))), name
            assert selection.apply(tensor).data_ptr() != tensor.data_ptr(), name


def test_zero_weights_that_are_selected_are_in_use():
    weight = torch.zeros(2, 3)
    selection = Selector(4).select(weight)
    assert selection.count == 4
    assert selection.mask().tolist() == [[True, True, True], [True, False, False]]


def test_full_selection():
    selection = EdgeSelection.full((2, 3))
    weight = torch.randn(2, 3)
    assert selection.is_full
    assert selection.count == 6
    assert selection.mask().all()
    assert selection.indices().tolist() == list(range(6))
    assert torch.equal(selection.apply(weight), weight)
    assert apply_selection(weight, selection, "all") is weight


def test_a_threshold_does_not_follow_changes_of_the_weight():
    weight = torch.randn(40)
    expected = top_mask(weight, 10)
    early, late = (Selector(10).select(weight) for _ in range(2))
    assert torch.equal(early.mask(), expected)
    weight.neg_().add_(0.5)
    assert torch.equal(early.mask(), expected)
    assert torch.equal(early.apply(weight), weight * expected)
    for use in (late.mask, late.indices, lambda: late.apply(weight)):
        with pytest.raises(WiringError, match="the weight was changed after this selection was made"):
            use()


@pytest.mark.parametrize("name", ["mask", "indices", "threshold"])
def test_gradients(name):
    weight = torch.tensor([3.0, -1.0, 2.0, 0.5]).requires_grad_()
    selection = forms(weight.detach(), 2)[name]
    sent = torch.tensor([1.0, 2.0, 3.0, 4.0])
    for function, expected in ((straight_through, [1, 2, 3, 4]), (masked, [1, 0, 3, 0])):
        used = function(weight, selection)
        assert used.tolist() == [3, 0, 2, 0]
        (gradient,) = torch.autograd.grad(used, weight, sent)
        assert gradient.tolist() == expected


@pytest.mark.parametrize("function", [straight_through, masked])
def test_compiled_functions_are_the_same(function):
    weight = torch.randn(5, 6, requires_grad=True)

    def used(weight):
        return function(weight, Selector(7).select(weight))

    compiled = torch.compile(used, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(weight), used(weight))
    upstream = torch.randn(5, 6)
    (found,) = torch.autograd.grad(compiled(weight), weight, upstream)
    (expected,) = torch.autograd.grad(used(weight), weight, upstream)
    assert torch.equal(found, expected)


def test_wrong_forms_are_refused():
    with pytest.raises(WiringError, match="a mask must be boolean, got"):
        EdgeSelection.from_mask(torch.ones(2))
    with pytest.raises(WiringError, match="indices must be int64"):
        EdgeSelection.from_indices(torch.ones(2), (4,))
