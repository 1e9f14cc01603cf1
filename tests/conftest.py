"""Shared by all tests: one thread per process, numbers of examples, and a tiny experiment file."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Read by torch when it is imported, here and in the processes that tests start: workers of pytest-xdist with
# threads of their own would take each other's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import yaml

import runner

if not torch.cuda.is_available():
    # Triton reads it when it is imported: without a GPU, its interpreter runs the kernels.
    os.environ.setdefault("TRITON_INTERPRET", "1")

# `make test-all` asks for `ci` by --hypothesis-profile; the numbers of tests/helpers/examples.py follow it.
settings.register_profile("dev", max_examples=20, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None)
settings.load_profile("dev")

ROOT = Path(__file__).resolve().parent.parent

for _signal in (signal.SIGHUP, signal.SIGUSR1):
    # Under nohup, or a service, they are ignored, and the commands that tests start would inherit that.
    with contextlib.suppress(ValueError):  # outside of the main thread it cannot be changed
        signal.signal(_signal, signal.SIG_DFL)

SMALL_GRAPH = {
    "image_size": 16,
    "dim": 80,
    "downsample_dim": 8,
    "feature_dim": 10,
    "layers": 4,
    "prune_rate": 0.9,
}
"""A tiny classifier's sizes."""
SMALL_STAGES = ((8, 12, 1, 1), (12, 16, 2, 2), (16, 16, 2, 4))
"""Those of a MobileNet graph."""

TINY = {
    **SMALL_GRAPH,
    "model": "models.graphs.neuralgraph:StaticNeuralGraph",
    "data": "tests.tiny_data:TinyData",
    "batch_size": 8,
    "num_epochs": 2,
    "lr_scheduler": "cosine",
    "log_interval": 2,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cuda", choices=["cuda", "cpu"], help="where tests marked gpu run")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: one process more than processors, since tests of several processes wait for each other."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device of tests marked gpu; such a test is skipped where there is none."""
    name = request.config.getoption("--device")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device(name)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def devices_stay_selected(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--gpus` of a command that runs within a test sets a variable of the process."""
    name = "CUDA_VISIBLE_DEVICES"
    if name in os.environ:
        monkeypatch.setenv(name, os.environ[name])
    else:
        monkeypatch.setenv(name, "")  # so that it is put back: to nothing
        monkeypatch.delenv(name)


@pytest.fixture
def seeds_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--seeds` runs each seed here, without the seconds in which a process of its own imports torch."""
    monkeypatch.setattr("genutil.runs.multi_seed._run", lambda command: runner.main(command[2:]))


@pytest.fixture
def small_mobilenet(monkeypatch: pytest.MonkeyPatch) -> None:
    """MobileNet graphs of SMALL_STAGES."""
    monkeypatch.setattr("models.graphs.mobilenetv1like.STAGES", SMALL_STAGES)


@pytest.fixture
def narrow_resnet18(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of few channels inside, in torchvision and here: 1.7 million weights in place of 11 million."""
    from torchvision.models import resnet

    from models.sparse_resnet import ARCHITECTURES

    class NarrowBlock(resnet.BasicBlock):
        def __init__(self, inplanes, planes, stride=1, downsample=None, *_, **__):
            torch.nn.Module.__init__(self)
            width = planes // 8
            self.conv1, self.bn1 = resnet.conv3x3(inplanes, width, stride), torch.nn.BatchNorm2d(width)
            self.conv2, self.bn2 = resnet.conv3x3(width, planes), torch.nn.BatchNorm2d(planes)
            self.relu, self.downsample = torch.nn.ReLU(inplace=True), downsample

    monkeypatch.setattr(resnet, "BasicBlock", NarrowBlock)
    monkeypatch.setitem(ARCHITECTURES, "resnet18", (NarrowBlock, ARCHITECTURES["resnet18"][1]))


@pytest.fixture
def write_app(tmp_path: Path):
    """Writes an experiment file: the tiny one, with some keys changed or (None) left out."""

    def write(name: str = "tiny.yml", **changes: object) -> Path:
        folders = {"save_dir": str(tmp_path / "checkpoints"), "log_dir": str(tmp_path / "runs")}
        keys = {key: value for key, value in {**TINY, **folders, **changes}.items() if value is not None}
        path = tmp_path / name
        path.write_text(yaml.safe_dump(keys))
        return path

    return write
