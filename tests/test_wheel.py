"""The wheel: `wirings` alone, installed into a fresh environment and used outside of the checkout."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

KERNELS = ("wirings.radix_kernels", "wirings.engines.gather")
"""The modules that are written in Triton."""


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel.

    Attributes:
        wheel: the file.
        bin: folder of its programs.
        folder: an empty one to work in.
    """

    wheel: Path
    bin: Path
    folder: Path

    def run(self, *argv: str | Path, status: int = 0, **variables: str) -> str:
        """What a program of the environment prints, outside of the checkout."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            [self.bin / argv[0], *argv[1:]], cwd=self.folder, env={**kept, **variables},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stderr[-3000:]
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """Built from a copy, since a build leaves files; nothing is fetched. torch is that of these tests."""
    base = tmp_path_factory.mktemp("wheel")
    source = base / "source"
    source.mkdir()
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "requirements.txt",
        "runner.py",
        "experiment.py",
        "construction.py",
    ):
        shutil.copy(ROOT / name, source)
    for package in ROOT.glob("*/__init__.py"):
        ignored = shutil.ignore_patterns("__pycache__", "pictures")
        shutil.copytree(package.parent, source / package.parent.name, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", base, source]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (wheel,) = base.glob("*.whl")
    environment = base / "environment"
    venv.create(environment, symlinks=True)
    (site,) = environment.glob("lib/python*/site-packages")
    python = environment / "bin" / "python"
    install = [*pip, "--python", python, "install", "--no-deps", "--no-index", wheel]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    # After the wheel's own folder: torch and the packages of the extras.
    (site / "packages_of_the_tests.pth").write_text(f"{Path(torch.__file__).parent.parent}\n")
    (base / "elsewhere").mkdir()
    yield Installed(wheel, environment / "bin", base / "elsewhere")
    shutil.rmtree(base)


def test_the_wheel_holds_the_library_alone(installed):
    assert installed.wheel.stat().st_size < 1_000_000
    names = zipfile.ZipFile(installed.wheel).namelist()
    about = [name for name in names if name.partition("/")[0].endswith(".dist-info")]
    files = [path for path in (ROOT / "wirings").rglob("*") if path.is_file()]
    expected = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    assert set(names) - set(about) == expected
    assert {"wirings/py.typed", "wirings/native/kernels/network.cpp", "wirings/rules/dnw.py"} <= expected


def test_what_the_wheel_requires(installed):
    files = zipfile.ZipFile(installed.wheel)
    (name,) = (name for name in files.namelist() if name.endswith("/METADATA"))
    about = email.message_from_bytes(files.read(name))
    required = about.get_all("Requires-Dist")
    needed = [re.split(r"[^\w-]", line)[0] for line in required if "extra ==" not in line]
    assert needed == ["torch", "numpy"]
    assert about.get_all("Provides-Extra") == ["export", "dgl", "all"]
    optional = {re.split(r"[^\w-]", line)[0] for line in required if "extra ==" in line}
    assert optional == {"onnx", "onnxscript", "onnxruntime", "safetensors", "dgl",
                        "discovering-neural-wirings"}  # fmt: skip
    listed = (ROOT / "requirements.txt").read_text() + (ROOT / "requirements-dev.txt").read_text()
    for line in required:
        version = re.match(r"([\w-]+)([=><.\d]*)", line)
        if version[2]:
            assert f"{version[1]}{version[2]}" in listed, line


IMPORTS = """
import importlib, pkgutil, sys
optional, kernels = sys.argv[1].split(), sys.argv[2].split()
for name in optional:
    sys.modules[name] = None  # as if it were not installed
import wirings
print(wirings.__file__)
names = [module.name for module in pkgutil.walk_packages(wirings.__path__, "wirings.")]
for name in names:
    if name not in kernels:
        importlib.import_module(name)
print(len(names), *kernels)
"""


def test_every_module_can_be_imported_without_optional_packages(installed):
    optional = "torchvision onnx onnxscript onnxruntime safetensors dgl triton matplotlib pydantic yaml"
    out = installed.run("python", "-c", IMPORTS, optional, " ".join(KERNELS)).splitlines()
    assert Path(out[0]).is_relative_to(installed.bin.parent)
    modules = [path for path in (ROOT / "wirings").rglob("*.py") if path.parent.name != "kernels"]
    assert int(out[1].split()[0]) == len(modules) - 1  # without wirings itself


def test_the_modules_in_triton_can_be_imported_where_there_is_triton(installed):
    pytest.importorskip("triton")
    installed.run("python", "-c", f"import {', '.join(KERNELS)}")


def test_the_example_of_the_readme(installed):
    (example,) = (
        block
        for block in re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
        if "import wirings" in block
    )
    (installed.folder / "example.py").write_text(example)
    out = installed.run("python", "example.py", OMP_NUM_THREADS="1")
    assert "layer1.0.conv1.weight" in out
    assert "10.00%" in out


def test_the_native_kernels_are_compiled_from_the_wheel(installed):
    program = "from wirings.native import build; print(build.compiler() and build.load_kernels().target)"
    assert installed.run("python", "-c", program).split()[-1] in ("None", "native")


def test_the_command(installed):
    (installed.folder / "own.py").write_text(
        "from torch import nn\n\n\ndef net(width=8):\n    return nn.Sequential(nn.Conv2d(3, width, 3), "
        "nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2))\n"
    )
    save = "import own, torch; torch.save(own.net().state_dict(), 'w.pt')"
    installed.run("python", "-c", save)
    arguments = ("w.pt", "--model", "own:net", "--model-args", "width=8", "--shape", "3", "8", "8")
    wiring = ("--rule", "dnw", "--density", "0.02")
    assert "| total |" in installed.run("wirings", "profile", *arguments, *wiring)
    out = installed.run("wirings", "compact", *arguments, *wiring, "--output", "out.pt2")
    assert "any number of images" in out
    run = "import torch; m = torch.export.load('out.pt2').module(); print(m(torch.zeros(3, 3, 8, 8)).shape)"
    assert "torch.Size([3, 2])" in installed.run("python", "-c", run)
    message = installed.run("wirings", "profile", "none.pt", *arguments[1:], status=2)
    assert message.startswith("wirings: none.pt: there is no such file")
    assert len(message.splitlines()) == 1
    assert "MODULE:CALLABLE" in installed.run("python", "-m", "wirings", "compact", "--help")
