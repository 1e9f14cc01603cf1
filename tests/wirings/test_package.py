"""The package: its names, and what importing it imports."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys

import pytest

import wirings
from tests.conftest import ROOT

OPTIONAL = {"torchvision", "onnx", "onnxscript", "onnxruntime", "safetensors", "dgl", "triton", "matplotlib",
            "pydantic", "yaml", "ninja", "tensorboard"}  # fmt: skip


STEPS = (
    "import wirings",
    "import torch",
    "wirings.wire",
    "; ".join(f"wirings.{name}" for name in wirings.__all__),
)
PROGRAM = """
import json, sys
for step in sys.argv[1:]:
    exec(step)
    print(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture(scope="module")
def loaded() -> list[set[str]]:
    """Names of the modules that one process has imported after each of STEPS."""
    command = [sys.executable, "-c", PROGRAM, *STEPS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [set(json.loads(line)) for line in done.stdout.splitlines()]


def test_importing_the_package_imports_neither_torch_nor_numpy(loaded):
    assert "wirings.errors" in loaded[0]
    assert not {"torch", "numpy", "wirings.rules"} & loaded[0]


def test_names_import_no_optional_package(loaded):
    package, with_torch, _, names = loaded
    added = package | (names - with_torch)
    assert {"wirings.wiring", "wirings.compacting", "wirings.exporting"} <= added
    assert not {name.partition(".")[0] for name in added} & OPTIONAL


def test_wire_imports_nothing_of_fast_evaluation(loaded):
    assert "wirings.wiring" in loaded[2]
    assert not {"wirings.compacting", "wirings.channels", "wirings.native"} & loaded[2]


@pytest.mark.parametrize("name", wirings.__all__)
def test_each_name_exists_and_is_documented(name):
    value = getattr(wirings, name)
    assert inspect.getdoc(value)
    assert name in dir(wirings)


def test_type_checkers_see_the_names_that_exist():
    program = ast.parse(inspect.getsource(wirings))
    imported = {
        alias.name
        for node in ast.walk(program)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wirings.")
        for alias in node.names
    }
    assert imported == set(wirings.__all__)
    assert sorted(wirings.__all__, key=lambda name: (name.islower(), name)) == wirings.__all__


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module wirings has no attribute wyre"):
        wirings.wyre  # noqa: B018
