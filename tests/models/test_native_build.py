"""The native engine's kernels come to be: compilers that fail, folders, second attempts."""

import os
import subprocess
import sys

import pytest
import torch

from genutil.errors import UserError
from models.fast_eval import compact
from models.fast_eval.native import build
from tests.conftest import ROOT
from tests.models.test_native import assert_close, small_mobilenet

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="needs a C++ compiler")


@pytest.fixture
def fresh_kernels(tmp_path, monkeypatch):
    """As on a machine that has not compiled them yet."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(
        sys.modules["models.fast_eval.compact"], "load_kernels", build.load_kernels.__wrapped__
    )
    monkeypatch.setattr(build, "_loaded", lambda: False)
    return monkeypatch


def test_without_a_compiler(fresh_kernels, caplog):
    fresh_kernels.setenv("CXX", "no-such-compiler")
    model = small_mobilenet()
    with pytest.raises(
        UserError, match=r"needs a C\+\+ compiler. Install one \(Debian: apt-get install g\+\+\)"
    ):
        compact(model, "native")
    pixels = torch.randn(1, 3, 32, 32)
    assert_close(compact(model)(pixels), model(pixels))
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith(
        "engine auto runs on torch's products, which are slower: engine native needs a C++"
    )


def test_a_compiler_that_refuses(fresh_kernels, tmp_path):
    script = tmp_path / "c++"
    script.write_text(
        "#!/bin/sh\ncase $* in *version*) exit;; esac\necho 'run.cpp:1: error: cannot do that' >&2\nexit 1\n"
    )
    script.chmod(0o755)
    fresh_kernels.setenv("CXX", str(script))
    with pytest.raises(UserError, match=r"could not be compiled.*\n.*error: cannot do that") as caught:
        compact(small_mobilenet(), "native")
    assert len(str(caught.value).splitlines()) < 15
    assert not list((tmp_path / "cache").glob("*/*.so"))


RETRY = """
import os, sys
from pathlib import Path
from genutil.errors import UserError
from models.fast_eval.native import build

folder = Path(os.environ["TORCH_EXTENSIONS_DIR"])
os.environ["CXX"] = sys.argv[1]
try:
    build.load_kernels()
except UserError:
    print("refused")
del os.environ["CXX"]
broken = folder / build._key(build.compiler())
broken.mkdir()
(broken / "wirings_native.so").write_bytes(b"cut off")
build.load_kernels()
build.load_kernels.cache_clear()
build.load_kernels()
print(sorted(path.name for path in broken.iterdir()))
"""


@pytest.mark.slow
def test_a_second_attempt_after_a_failure(tmp_path):
    """In one process, with what is left of a library in the place of one."""
    script = tmp_path / "c++"
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(0o755)
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", RETRY, script], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "refused\n['wirings_native.so']\n", done.stderr[-3000:]


def test_a_folder_that_cannot_be_used(fresh_kernels, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    with pytest.raises(UserError, match=r"cannot be kept in .*cache/.*Name another folder in \$TORCH_EXT"):
        compact(small_mobilenet(), "native")
