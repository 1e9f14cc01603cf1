"""Mixed precision: near the full one, selection in float32, losses that overflow are left out."""

import json

import pytest
import torch
import torch.nn.functional as F

import runner
from genutil.config import load_config
from models import build_model
from models.graphs.topk import Selector
from tests.conftest import ROOT, SMALL_GRAPH
from trainers.precision import Precision

pytestmark = pytest.mark.usefixtures("small_mobilenet")
CPU = torch.device("cpu")
APPS = [
    "small_scale/static_dnw.yml",
    "small_scale/discrete_time_dnw.yml",
    pytest.param("small_scale/continuous_time_dnw.yml", marks=pytest.mark.slow),
    "medium_scale/mobilenetv1_dnw_x225.yml",
]


def losses(app, amp, steps=8):
    """Of a few steps on one batch."""
    torch.manual_seed(0)
    keys = {"image_size": 32} if "mobilenet" in app else SMALL_GRAPH
    network = build_model(load_config(ROOT / "apps" / app, keys)).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, fused=True)
    precision = Precision(amp, CPU)
    images, labels = torch.randn(16, 3, keys["image_size"], keys["image_size"]), torch.arange(16) % 10
    found = []
    for _ in range(steps):
        with precision.autocast():
            loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        precision.backward(loss)
        precision.step(optimizer)
        found.append(loss.item())
    assert all(weight.dtype == torch.float32 for weight in network.parameters())
    return torch.tensor(found)


@pytest.mark.parametrize("app", APPS)
def test_bf16_trains_as_float32_does(app):
    full, mixed = losses(app, None), losses(app, "bf16")
    assert not torch.equal(full, mixed)
    assert (full[0] - mixed[0]).abs() < 0.02
    assert (full - mixed).abs().max() < 0.1 * full[0]
    fall, mixed_fall = full[0] - full[-1], mixed[0] - mixed[-1]
    assert (mixed_fall - fall).abs() < 0.2 * fall


def test_fp16_trains_as_float32_does():
    full, mixed = losses(APPS[0], None), losses(APPS[0], "fp16")
    assert (full - mixed).abs().max() < 0.1 * full[0]


@pytest.mark.parametrize("app", APPS)
def test_the_selection_sees_float32_weights(app, monkeypatch):
    seen = []
    real = Selector.select
    monkeypatch.setattr(
        Selector, "select", lambda self, weight: seen.append(weight.dtype) or real(self, weight)
    )
    losses(app, "bf16", steps=1)
    assert set(seen) == {torch.float32}


def test_a_step_that_overflows_is_left_out():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1, fused=True)
    precision = Precision("fp16", CPU)
    scale = precision.state_dict()["scale"]
    precision.backward((weight * torch.inf).sum())
    precision.step(optimizer)
    assert torch.equal(weight, torch.ones(2))
    assert precision.state_dict()["scale"] < scale
    other = Precision("fp16", CPU)
    other.load_state_dict(precision.state_dict())
    assert other.state_dict() == precision.state_dict()


def test_momenta_start_at_zero_when_the_first_step_is_left_out(monkeypatch):
    """torch's fused SGD would begin the second step with whatever its memory held."""
    real = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda *args, **keys: real(*args, **keys).fill_(torch.nan))
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, fused=True)
    precision = Precision("fp16", CPU)
    for factor in (torch.inf, 1.0, 1.0):
        optimizer.zero_grad()
        precision.backward((weight * factor).sum())
        precision.step(optimizer)
    torch.testing.assert_close(weight.detach(), torch.full((2,), 1 - 0.1 - 0.1 * 1.9))


def test_the_command_evaluates_in_the_same_precision(write_app, tmp_path):
    path = write_app()
    assert runner.main([f"app:{path}", "--amp", "bf16", "--num_epochs", "1"]) == 0
    last = str(tmp_path / "checkpoints" / "tiny" / "last.pt")
    assert runner.main([f"app:{path}", "--resume", last, "--evaluate", "--amp", "bf16"]) == 0
    assert runner.main([f"app:{path}", "--resume", last, "--evaluate"]) == 0
    trained, mixed, full = (
        json.loads(file.read_text())
        for file in sorted((tmp_path / "runs").glob("*/results.json"), key=lambda file: file.stat().st_mtime)
    )
    assert trained["CELoss"] == mixed["CELoss"] != full["CELoss"]
    assert mixed["CELoss"] == pytest.approx(full["CELoss"], abs=0.05)
