"""Every Triton kernel compiles for GPUs that are not here."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.models.compile_kernels import KERNELS, TARGETS

pytest.importorskip("triton")


@pytest.mark.slow
def test_all_kernels(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.models.compile_kernels"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count(" bytes\n") == len(KERNELS) * len(TARGETS)
