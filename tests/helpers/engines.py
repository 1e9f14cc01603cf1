"""Engines that run on this machine's CPU."""

import importlib.util

import pytest

from wirings.engines import ENGINES
from wirings.native import build

NEEDS_COMPILER = pytest.mark.skipif(build.compiler() is None, reason="needs a C++ compiler")
NEEDS_DGL = pytest.mark.skipif(importlib.util.find_spec("dgl") is None, reason="needs dgl")
_NEEDS = {"native": NEEDS_COMPILER, "dgl": NEEDS_DGL}

CPU_ENGINES = [
    pytest.param(engine, marks=_NEEDS.get(engine, ()))
    for engine in ENGINES
    if engine != "triton"  # test_triton.py has its own
]
"""For parametrised tests: those that are not installed are skipped."""
INSTALLED = [param.values[0] for param in CPU_ENGINES if not any(mark.args[0] for mark in param.marks)]
"""Names of those that are installed, for tests that try all of them on one network."""
