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


def modules_after(program: str) -> set[str]:
    """Names of the modules that a program has imported at its end."""
    program += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_the_package_imports_neither_torch_nor_numpy():
    loaded = modules_after("import wirings")
    assert "wirings.errors" in loaded
    assert not {"torch", "numpy", "wirings.rules"} & loaded


def test_names_import_no_optional_package():
    without = modules_after("import torch")
    names = ", ".join(f"wirings.{name}" for name in wirings.__all__)
    loaded = modules_after(f"import torch, wirings; {names}") - without
    assert {"wirings.wiring", "wirings.compacting", "wirings.exporting"} <= loaded
    assert not {name.partition(".")[0] for name in loaded} & OPTIONAL


def test_wire_imports_nothing_of_fast_evaluation():
    loaded = modules_after("import wirings; wirings.wire")
    assert "wirings.wiring" in loaded
    assert not {"wirings.compacting", "wirings.channels", "wirings.native"} & loaded


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
