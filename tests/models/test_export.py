"""Exported files: other programs calculate the same logits from them."""

import importlib
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

import runner
from tests.conftest import ROOT
from tests.helpers.equality import assert_close
from tests.helpers.exported_files import needs_onnx, operators_read_once, run_onnx  # noqa: F401  (a fixture)
from tests.helpers.random_wirings import build, randomise, small_mobilenet
from tests.models import edge_reader
from wirings.errors import WiringError
from wirings.exporting import export

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = needs_onnx


@pytest.mark.parametrize(
    ("kind", "small"),
    [
        *(("few", False), ("some", True)),
        *(pytest.param(kind, False, marks=pytest.mark.slow) for kind in ("all", "columns")),
    ],
)
def test_files_of_mobilenets(tmp_path, kind, small):
    model = small_mobilenet(3, ("some", kind, "some", kind), image_size=40, small=small)
    images = torch.randn(5, 3, 40, 40)
    with torch.no_grad():
        logits = model(images)
    summary = export(model, tmp_path / "out.onnx", (3, 40, 40))
    assert "differ by" in summary
    assert_close(run_onnx(tmp_path / "out.onnx", images), logits)
    export(model, tmp_path / "out.safetensors", (3, 40, 40))
    found = edge_reader.logits(tmp_path / "out.safetensors", images.numpy())
    assert_close(torch.from_numpy(found.astype(np.float32)), logits)


@pytest.mark.parametrize("app", ["static_dnw", "discrete_time_dnw"])
def test_files_of_tiny_classifiers(tmp_path, app):
    model = build(
        f"small_scale/{app}.yml", graph="random", dim=40, downsample_dim=8, feature_dim=12, layers=3
    )
    randomise(model, ["some"], 0)
    export(model.eval(), tmp_path / "out.onnx", (3, 32, 32))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert_close(run_onnx(tmp_path / "out.onnx", images), model(images))
    with pytest.raises(
        ValueError, match="safetensors is for MobileNet graphs; this network can be exported as"
    ):
        export(model, tmp_path / "out.safetensors", (3, 32, 32))


@pytest.mark.parametrize("solver", ["euler", "midpoint", pytest.param("rk4", marks=pytest.mark.slow)])
def test_graphs_in_continuous_time_with_steps_of_equal_size(tmp_path, solver):
    model = build(
        "small_scale/continuous_time_dnw.yml",
        graph="random", dim=40, downsample_dim=8, feature_dim=12, ode_solver=solver, ode_steps=2,
    ).eval()  # fmt: skip
    randomise(model, ["some"], 0)
    export(model, tmp_path / "out.onnx", (3, 32, 32))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert_close(run_onnx(tmp_path / "out.onnx", images), model(images))


def test_a_dense_network(tmp_path):
    model = build("medium_scale/mobilenetv1_x25.yml").eval()
    export(model, tmp_path / "out.onnx", (3, 32, 32))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert_close(run_onnx(tmp_path / "out.onnx", images), model(images))


def test_what_cannot_be_exported_leaves_the_old_file(tmp_path):
    path = tmp_path / "out.onnx"
    path.write_text("old")
    with pytest.raises(ValueError, match="continuous time cannot be exported"):
        export(build("small_scale/continuous_time_dnw.yml", dim=150), path, (3, 32, 32))
    with pytest.raises(ValueError, match="no node of this network depends on the image"):
        export(small_mobilenet(kinds=("some", "none", "none", "some")), path, (3, 40, 40))
    with pytest.raises(
        ValueError, match=r"the name must end in .onnx, .pt2, .safetensors or .wiring, got out.pt"
    ):
        export(small_mobilenet(), Path("out.pt"), (3, 32, 32))
    assert path.read_text() == "old"


@pytest.mark.parametrize("error", [0.1, float("nan")])
def test_a_runtime_that_calculates_otherwise(tmp_path, monkeypatch, error):
    class Session(onnxruntime.InferenceSession):
        def run(self, *args):
            return [super().run(*args)[0] + error]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5)).eval()
    with pytest.raises(WiringError, match=r"logits in .* differ by"):
        export(model, tmp_path / "out.onnx", (3, 2, 2))
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("package", "ending"), [("onnxscript", "onnx"), ("safetensors.torch", "safetensors")]
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, package, ending):
    find = importlib.import_module

    def missing(name):
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return find(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(WiringError, match=f"export needs {package}: pip install "):
        export(small_mobilenet(), tmp_path / f"out.{ending}", (3, 40, 40))


def test_the_command(tmp_path, capsys, caplog):
    caplog.set_level(logging.INFO)
    folders = ["--save_dir", f"{tmp_path}/c", "--log_dir", f"{tmp_path}/r"]
    app = f"app:{ROOT}/apps/quickstart/digits_dnw.yml"
    folders += ["--dim", "80", "--downsample_dim", "8", "--feature_dim", "10"]
    assert runner.main([app, "--num_epochs", "1", *folders]) == 0
    resumed = [app, "--resume", f"{tmp_path}/c/digits_dnw/best.pt", *folders]
    assert runner.main([*resumed, "--export", f"{tmp_path}/out.onnx"]) == 0
    assert f"written: {tmp_path}/out.onnx" in caplog.text
    for argv, message in [
        ([app, "--export", "out.onnx"], "writes a trained network; name its checkpoint with --resume FILE"),
        ([*resumed, "--export", "out.pt"], "FILE.onnx"),
        ([*resumed, "--export", "out.safetensors"], "safetensors is for MobileNet graphs"),
        ([*resumed, "--export", "/proc/out.pt2"], "cannot be written"),
        ([*resumed, "--evaluate", "--export", "out.onnx"], "choose one of them"),
    ]:
        capsys.readouterr()
        assert runner.main(argv) == 2
        assert message in capsys.readouterr().err
