"""The list of edges in use multiplies as the masked matrix does."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from wirings.blocks import EdgeList


def part(data, size):
    start = data.draw(st.integers(0, size))
    return slice(start, data.draw(st.integers(start, size)))


@given(data=st.data(), seed=st.integers(0, 99))
@examples(150)
def test_a_piece_of_the_list_is_the_piece_of_the_matrix(data, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(7, 5, 1, 1, generator=generator)
    mask = torch.rand(7, 5, 1, 1, generator=generator) < data.draw(st.sampled_from([0.0, 0.2, 1.0]))
    edges = EdgeList(weight, mask.flatten().nonzero().flatten())
    piece = (part(data, 7), part(data, 5))
    matrix, (found, indices) = (weight * mask)[piece].flatten(1), edges.piece(piece)
    sources = torch.randn(matrix.shape[1], 6, generator=generator)
    assert torch.allclose(
        found.product(sources, torch.empty(matrix.shape[0], 6)), matrix @ sources, atol=1e-6
    )
    targets = torch.randn(matrix.shape[0], 6, generator=generator)
    total = sources.clone()
    found.transposed().product(targets, total, add=True)
    assert torch.allclose(total, sources + matrix.t() @ targets, atol=1e-6)
    gradient = torch.zeros(7, 5)
    gradient[piece] = targets @ sources.t()
    assert torch.allclose(found.products_of_rows(targets, sources), gradient.flatten()[indices], atol=1e-6)
    assert indices.tolist() == [i for i in range(35) if mask.flatten()[i] and gradient.flatten()[i] != 0]


def test_wide_matrices_are_transposed_as_well():
    weight = torch.randn(3, 70_000, 1, 1)
    places = torch.tensor([5, 69_999, 70_005, 200_000])
    targets = torch.randn(3, 2)
    matrix, _ = EdgeList(weight, places).piece((slice(0, 3), slice(0, 70_000)))
    found = matrix.transposed().product(targets, torch.empty(70_000, 2))
    used = torch.zeros(210_000).index_put((places,), weight.flatten()[places]).view(3, -1)
    assert torch.allclose(found, used.t() @ targets)


def test_the_list_has_no_gradient():
    weight = torch.nn.Parameter(torch.randn(3, 4, 1, 1))
    matrix, _ = EdgeList(weight, torch.tensor([2, 5])).piece((slice(0, 3), slice(0, 4)))
    assert not matrix.product(torch.randn(4, 2), torch.empty(3, 2)).requires_grad
    assert not matrix.products_of_rows(torch.randn(3, 2), torch.randn(4, 2)).requires_grad
