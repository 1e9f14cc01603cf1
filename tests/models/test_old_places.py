"""The stable interface: programs that import parts of the library from `models` get the same objects."""

import dataclasses
import importlib

import pytest

from genutil.checkpoint import CheckpointInfo
from models.profiling import Profile

PLACES = {
    "models.fast_eval": ("wirings.compacting", "compact engines_of"),
    "models.graphs.edges": ("wirings.rules.base", "EdgeRule EdgeSpace PotentialEdges"),
    "models.graphs.topk": ("wirings.topk", "choose_top_edges num_kept top_mask top_mask_by_row"),
    "models.profiling": ("wirings.profiling", "Profile as_table profile"),
}


@pytest.mark.parametrize("place", PLACES)
def test_names_are_those_of_the_library(place):
    module, names = PLACES[place]
    old, new = importlib.import_module(place), importlib.import_module(module)
    for name in names.split():
        assert getattr(old, name) is getattr(new, name)
        assert name in old.__all__


def test_fields_of_results():
    fields = {kind: [field.name for field in dataclasses.fields(kind)] for kind in (CheckpointInfo, Profile)}
    assert fields == {
        CheckpointInfo: ["epoch", "step", "best_val", "origin"], Profile: ["params", "macs", "per_layer"]
    }  # fmt: skip
