"""`compact` and `export` of networks without a structure: wired by `wire`, or with weights that are zero."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
import torchvision
from torch import Tensor, nn

from tests.helpers.equality import assert_close
from tests.helpers.exported_files import needs_onnx, run_onnx
from tests.wirings.channel_cases import image, shift_norms
from wirings.compacting import NoCompactForm, compact, engines_of
from wirings.errors import WiringError
from wirings.exporting import export
from wirings.structure import FoldableNorms, WiredNetwork
from wirings.wiring import wire


def chain() -> nn.Sequential:
    """Two convolutions and a classifier."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 12, 3, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 5),
    )


def same_logits(small: nn.Module, model: nn.Module, images: Tensor, tolerance: float = 1e-5) -> None:
    reference = copy.deepcopy(model).eval()
    with torch.no_grad():
        torch.testing.assert_close(small(images), reference(images), rtol=tolerance, atol=tolerance)


RULES: list[tuple[str, float, dict]] = [
    ("dnw", 0.005, {}),
    ("dnw", 0.005, {"budget": "global"}),
    ("random", 0.0005, {"budget": "uniform"}),
    ("fine_tune", 0.005, {}),
    ("td", 0.005, {"rho": 0.5}),
]


@pytest.mark.parametrize(("rule", "density", "options"), RULES, ids=str)
def test_a_wired_resnet(rule, density, options):
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10).double()
    shift_norms(model, 0)
    wiring = wire(model, rule, density, **options)
    for edges in wiring.rules.values():
        edges.freeze_wiring()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small = compact(model, example=image(3, 40))
    same_logits(small, model, image(3, 40), 1e-10)
    same_logits(small, model, image(3, 64), 1e-10)
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert wiring.summary().total.in_use
    assert small.report.params_after < 0.9 * small.report.params_before
    assert small.report.params_after == sum(parameter.numel() for parameter in small.parameters())
    assert engines_of(small) == "dense"
    with pytest.raises(WiringError, match="train the network it was made from"):
        small.train()


def test_the_default_example_is_a_black_image(caplog):
    model = chain()
    wire(model, density=0.1)
    with pytest.raises(NoCompactForm, match="the shape of the inputs of Sequential is not known; give"):
        compact(model)
    model.image_size = 12
    caplog.set_level(logging.INFO)
    small = compact(model)
    same_logits(small, model, torch.randn(4, 3, 12, 12))
    assert str(small.report) in caplog.text
    assert all(layer.macs_before for layer in small.report.layers)
    linear = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    linear.image_size = 12
    wire(linear, density=0.5)
    with pytest.raises(NoCompactForm, match="the shape of the inputs of Sequential is not known"):
        compact(linear)
    same_logits(compact(linear, example=torch.zeros(1, 6)), linear, torch.randn(3, 6))


def test_a_selected_zero_is_in_use():
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    model[0].weight.data = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    wire(model, "complete", include="0", density=1.0)
    left = {layer.name: layer.after for layer in compact(model, example=torch.zeros(1, 3)).report.layers}
    assert left == {"0": 4, "2": 2}
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    model[0].weight.data[1] = 0
    left = {layer.name: layer.after for layer in compact(model, example=torch.zeros(1, 3)).report.layers}
    assert left == {"0": 3, "2": 2}


def test_a_network_that_is_not_wired_needs_an_example():
    model = chain()
    model.image_size = 12
    model[3].weight.data[:, 8:] = 0
    with pytest.raises(NoCompactForm, match=r"structure\(\) describes it, .*, or with an example"):
        compact(model)
    small = compact(model, example=torch.zeros(1, 3, 12, 12))
    same_logits(small, model, torch.randn(4, 3, 12, 12))
    assert small.report.layers[0].after == 8
    with pytest.raises(WiringError, match="does not run on an example of shape"):
        compact(model, example=torch.zeros(1, 4, 12, 12))


class Pairs(WiredNetwork):
    def __init__(self) -> None:
        super().__init__()
        self.layers = chain()

    def structure(self):
        return FoldableNorms([("layers.0", "layers.1")])

    def forward(self, images):
        return self.layers(images)


class Twice(Pairs):
    def forward(self, images):
        return 2 * super().forward(images)


def test_a_description_of_another_forward_pass_is_not_used():
    model = Twice()
    with pytest.raises(NoCompactForm, match=r"it overrides forward\(\), but not structure\(\); or give an"):
        compact(model)
    model.layers[3].weight.data[:, 8:] = 0
    small = compact(model, example=torch.zeros(1, 3, 12, 12))
    same_logits(small, model, torch.randn(4, 3, 12, 12))
    assert small.report.layers[0].after == 8
    assert compact(Pairs(), example=torch.zeros(1, 3, 12, 12)).report is None


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = chain()

    def forward(self, images):
        return self.layers(images) * (2 if images.sum() > 0 else 1)


def test_a_network_whose_operations_are_not_known_keeps_its_channels(caplog, tmp_path):
    model = Branching()
    wire(model, density=0.02)
    small = compact(model, example=torch.zeros(1, 3, 12, 12))
    same_logits(small, model, torch.randn(4, 3, 12, 12))
    assert small.report.params_after == small.report.params_before
    assert "No channels were removed: the network cannot be traced" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "csr"}, "engine csr has no effect on a network without structure()"),
        ({"bf16": True}, "bf16 has no effect"),
    ],
)
def test_settings_without_effect(caplog, options, message):
    model = chain()
    wire(model, density=0.1)
    compact(model, example=torch.zeros(1, 3, 12, 12), **options)
    assert message in caplog.text
    caplog.clear()
    compact(model, "dense", example=torch.zeros(1, 3, 12, 12))
    assert not caplog.records


def test_a_wrong_engine_is_refused():
    model = chain()
    wire(model)
    with pytest.raises(WiringError, match="engine must be one of"):
        compact(model, "densse", example=torch.zeros(1, 3, 12, 12))


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile()
    return model


@pytest.mark.parametrize("wrap", [torch.compile, compiled_in_place, nn.DataParallel])
def test_wrapped_networks(wrap):
    model = chain()
    wire(model, density=0.05)
    example = torch.zeros(1, 3, 12, 12)
    expected = compact(model, example=example).report
    small = compact(wrap(copy.deepcopy(model)), example=example)
    same_logits(small, model, torch.randn(4, 3, 12, 12))
    assert small.report.params_after == expected.params_after < expected.params_before


@needs_onnx
def test_files_of_wired_networks(tmp_path):
    model = chain().train()
    shift_norms(model, 0)
    wire(model, density=0.03)
    path = tmp_path / "out.onnx"
    line = export(model, path, (3, 12, 12))
    report = compact(model, example=torch.zeros(1, 3, 12, 12)).report
    assert f"{report.params_after:,} of {report.params_before:,} parameters, logits in onnxruntime" in line
    images = torch.randn(5, 3, 12, 12)
    with torch.no_grad():
        assert_close(run_onnx(path, images), copy.deepcopy(model).eval()(images))
    assert model.training
    branching = Branching()
    wire(branching, density=0.03)
    with pytest.raises(WiringError, match="Branching cannot be exported as ONNX"):
        export(branching, path, (3, 12, 12))
    with pytest.raises(WiringError, match=r"\.safetensors is for MobileNet graphs"):
        export(model, tmp_path / "out.safetensors", (3, 12, 12))


def test_programs_of_wired_networks(tmp_path, monkeypatch):
    model = chain().train()
    shift_norms(model, 0)
    wire(model, density=0.03)
    path = tmp_path / "out.pt2"
    assert "any number of images, logits in torch" in export(model, path, (3, 12, 12))
    program = torch.export.load(path).module()
    images = torch.randn(5, 3, 12, 12)
    with torch.no_grad():
        assert_close(program(images), copy.deepcopy(model).eval()(images))
    branching = Branching()
    wire(branching, density=0.03)
    reason = "Dynamic control flow" if torch.__version__ < "2.7" else "its forward"
    with pytest.raises(WiringError, match=rf"Branching cannot be exported by torch\.export: {reason}"):
        export(branching, path, (3, 12, 12))
    monkeypatch.setattr("wirings.ready.TOLERANCE", -1.0)
    with pytest.raises(WiringError, match=r"logits in torch 2.* differ by"):
        export(model, tmp_path / "other.pt2", (3, 12, 12))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.pt2"]


@needs_onnx
def test_files_of_networks_with_zeros(tmp_path):
    model = chain()
    path = tmp_path / "out.onnx"
    assert "the full network" in export(model, path, (3, 12, 12))
    whole = path.stat().st_size
    model[3].weight.data[:, 4:] = 0
    assert "parameters, logits" in export(model, path, (3, 12, 12))
    assert path.stat().st_size < whole
    images = torch.randn(5, 3, 12, 12)
    with torch.no_grad():
        assert_close(run_onnx(path, images), copy.deepcopy(model).eval()(images))
