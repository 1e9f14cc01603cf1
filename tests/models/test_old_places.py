"""Programs that import parts of the library from their first places get the same objects."""

import importlib

import pytest

PLACES = {
    "models.counting": ("wirings.counting", "count_macs"),
    "models.fast_eval": ("wirings.compacting", "compact engines_of"),
    "models.fast_eval.compact": ("wirings.compacting", "NoCompactForm compact engines_of"),
    "models.fast_eval.engines": ("wirings.engines", "ENGINES find_engine"),
    "models.fast_eval.engines.csr": ("wirings.engines.csr", "CSRProduct compressed_rows"),
    "models.fast_eval.engines.dense": ("wirings.engines.dense", "DenseProduct"),
    "models.fast_eval.engines.dgl": ("wirings.engines.dgl", "DGLProduct"),
    "models.fast_eval.engines.native": ("wirings.engines.native", "NativeProduct"),
    "models.fast_eval.engines.triton": ("wirings.engines.triton", "FastestProduct TritonProduct"),
    "models.fast_eval.export": ("wirings.exporting", "ENDINGS edge_arrays export"),
    "models.fast_eval.native": ("wirings.native", "NativeNetwork load_kernels"),
    "models.fast_eval.native.build": ("wirings.native.build", "KERNELS compiler load_kernels"),
    "models.fast_eval.native.program": ("wirings.native.program", "Program Step Writer"),
    "models.fast_eval.network": ("wirings.compact_network", "CompactNetwork CompactStage ConvStem"),
    "models.fast_eval.portable": ("wirings.portable", "PortableNetwork"),
    "models.graphs.complexity": ("wirings.structure", "LayerComplexity num_parameters wired_layers"),
    "models.graphs.stages": ("wirings.stages", "Group Liveness Stage find_liveness"),
    "models.profiling": ("wirings.profiling", "Profile as_table profile"),
}


@pytest.mark.parametrize("place", PLACES)
def test_names_of_the_first_places(place):
    module, names = PLACES[place]
    old, new = importlib.import_module(place), importlib.import_module(module)
    for name in names.split():
        assert getattr(old, name) is getattr(new, name)
        assert name in old.__all__


def test_functions_are_not_hidden_by_modules_of_the_same_name():
    import models.fast_eval.compact
    import wirings
    from models.fast_eval import compact

    importlib.import_module("wirings.compacting")
    assert compact is wirings.compact and callable(compact)
    assert models.graphs.complexity.WiredLayer is wirings.structure.GraphLayer
