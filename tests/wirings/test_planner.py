"""Programs of the native engine: where maps are stored."""

import torch

from tests.helpers.engines import NEEDS_COMPILER
from wirings.native import load_kernels
from wirings.native.operations import Activation, Maps, Operations, Placement
from wirings.native.planner import plan

pytestmark = NEEDS_COMPILER


def test_maps_that_several_operations_write_and_nothing_reads():
    """Their slots become free once: two later maps would share one that becomes free twice."""
    operations = Operations()
    maps = operations.input(3, (4, 4))
    placed = operations.place(maps, Placement((0, 0), 1, (0, 0), 2), (8, 8), "place")
    operations.place_in(maps, placed, Placement((0, 0), 1, (1, 1), 2), "place")
    read = Maps(placed.numbers[:1], (8, 8))
    one = operations.activation(read, Activation.SIGMOID, "sigmoid")
    other = operations.activation(read, Activation.HARDSWISH, "hardswish")
    operations.output(operations.combine(one, other, True, "product"))
    pixels = torch.randn(2, 3, 4, 4)
    (found,) = load_kernels().open(plan(operations.list).to_bytes()).run([pixels], 1)
    expected = torch.zeros(2, 1, 8, 8)
    expected[..., ::2, ::2] = expected[..., 1::2, 1::2] = pixels[:, :1]
    torch.testing.assert_close(found, expected.sigmoid() * torch.nn.functional.hardswish(expected))
