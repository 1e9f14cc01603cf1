"""Imports between the program's modules form no cycle, and no two of its files have nearly the same name."""

import re
from graphlib import TopologicalSorter

import grimp

from tests.conftest import ROOT

PACKAGES = (
    "wirings", "genutil", "data", "models", "trainers", "fig", "benchmarks", "imagenet_sparsity_experiments",
)  # fmt: skip


def test_imports_form_no_cycle():
    """Imports for types included."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    assert len(graph.modules) > 150
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    TopologicalSorter(imports).prepare()  # a CycleError names the modules of a cycle


def test_no_two_files_have_nearly_the_same_name():
    """Except for benchmarks, named after what they measure, and modules that import the names of others."""
    files = {}
    for package in set(PACKAGES) - {"benchmarks"}:
        for path in sorted((ROOT / package).rglob("*.py")):
            if (
                not path.name.startswith("__")
                and re.search(r"(The|the) names of wirings", path.read_text()[:90]) is None
            ):
                stem = path.stem.replace("_", "").removesuffix("s")
                files.setdefault(stem, []).append(str(path.relative_to(ROOT)))
    assert {stem: paths for stem, paths in files.items() if len(paths) > 1} == {}
