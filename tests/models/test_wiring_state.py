"""Records of networks that `wire` has wired: channels as nodes, by exact small cases."""

import pytest
import torch
from torch import nn

import wirings
from models.wiring_state import wiring_layout, wiring_state


def recorded(layer, weight):
    """(channel pairs in use, their weights) of one wired layer with these weights; zeros are not in use."""
    model = nn.Sequential(layer)
    with torch.no_grad():
        layer.weight.copy_(weight.view(layer.weight.shape))
    count = int((weight != 0).sum())
    wirings.wire(model, budget=lambda shapes, _: {"0.weight": count})
    (layout,) = wiring_layout(model)
    (state,) = wiring_state(model).values()
    assert layout["name"] == "0"
    pairs = [divmod(int(index), layout["sources"]) for index in state.edge_indices]
    return dict(zip(pairs, state.weights.tolist(), strict=True)), layout, state.live.tolist()


def test_a_filter_is_one_edge_with_its_strongest_weight():
    weight = torch.zeros(2, 3, 2, 2)
    weight[1, 2, 0, 1], weight[1, 2, 1, 1], weight[0, 0, 0, 0] = 0.5, -2.0, 1.0
    edges, layout, live = recorded(nn.Conv2d(3, 2, 2, bias=False), weight)
    assert edges == {(0, 0): 1.0, (1, 2): -2.0}
    assert (layout["targets"], layout["sources"]) == (2, 3)
    assert live == [True, False, True]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        # weight (out, in / groups): rows 2 and 3 are of the second group, whose sources are 2 and 3
        (nn.Conv1d(4, 4, 1, groups=2), {(0, 1): 1.0, (3, 2): 2.0}),
        # weight (in, out / groups): row 3 is source 3, of the second group, whose targets are 2 and 3
        (nn.ConvTranspose1d(4, 4, 1, groups=2), {(1, 0): 1.0, (2, 3): 2.0}),
    ],
    ids=["convolution", "transposed"],
)
def test_groups_and_transposed_convolutions(layer, expected):
    weight = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    edges, layout, _ = recorded(layer, weight)
    assert edges == expected
    assert (layout["targets"], layout["sources"]) == (4, 4)


def test_linear_layers():
    edges, layout, _ = recorded(nn.Linear(3, 2), torch.tensor([[0.0, -1.0, 0.0], [0.0, 0.0, 3.0]]))
    assert edges == {(0, 1): -1.0, (1, 2): 3.0}
    assert layout["columns"] == [{"sources": [0, 3], "targets": None}]
