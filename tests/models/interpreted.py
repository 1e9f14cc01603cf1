"""Triton's kernels by its interpreter."""

import sys

import pytest


def interpreted_kernels(module):
    """A fixture: within a test, the kernels of this module are imported for the interpreter."""

    @pytest.fixture
    def interpreted(monkeypatch):
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        monkeypatch.delitem(sys.modules, module, raising=False)
        yield
        sys.modules.pop(module, None)

    return interpreted
