"""Networks of the benchmarks of inference."""

import numpy as np
import pytest

from benchmarks.roofline import executed_macs
from benchmarks.wirings import STORED, make_network
from genutil.exceptions import UserError
from tests.conftest import ROOT
from tests.helpers.engines import NEEDS_COMPILER
from wirings.compacting import compact
from wirings.profiling import profile
from wirings.structure import wired_layers

LARGE = str(ROOT / "apps/large_scale/mobilenetv1_dnw_x225.yml")


@NEEDS_COMPILER
def test_the_stored_wiring_of_a_training():
    """Nearly all of its edges are effective, unlike those of initial weights; most nodes are live."""
    model = make_network(LARGE, "trained")
    stored = np.load(STORED)
    for layer in wired_layers(model):
        assert layer.rule.in_use().flatten().nonzero().flatten().tolist() == stored[layer.name].tolist()
    cost = profile(model)
    assert (cost.edges, cost.effective_edges, cost.live_nodes) == (158_944, 155_237, 4_020)
    assert executed_macs(compact(model, "native"), 224) == 52_501_538


def test_the_stored_wiring_is_of_one_size():
    with pytest.raises(UserError, match=r"x49.yml: layers.0.graph has .* edges, trained_x225.npz has"):
        make_network(LARGE.replace("x225", "x49"), "trained")
