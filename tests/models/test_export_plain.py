"""Networks without a compact form are exported as they are: other programs calculate the same logits."""

import copy
import logging
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

import runner
from genutil.checkpoint import load_weights
from models.graphs.mobilenetv1like import MobileNetV1Like
from tests.helpers.equality import assert_close
from tests.helpers.exported_files import needs_onnx, operators_read_once, run_onnx  # noqa: F401  (a fixture)
from tests.helpers.random_wirings import small_mobilenet
from wirings.errors import WiringError
from wirings.exporting import export
from wirings.rules import find_rule
from wirings.rules.base import PotentialEdges

pytestmark = needs_onnx
SHAPE = (3, 16, 16)


class Wired(nn.Module):
    """A wired layer called `graph`, by a function of torch."""

    def __init__(self, rule="dnw", **keys):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16)
        self.graph = find_rule(rule)(PotentialEdges(16, 16, 16, 16), num_edges=64, **keys)
        self.fc = nn.Linear(16, 10)

    def forward(self, images):
        states = F.conv2d(F.relu(self.norm(self.stem(images))), self.graph())
        return self.fc(F.dropout(states.mean((2, 3)), training=self.training))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, stride=4)
        self.layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True)
        self.fc = nn.Linear(12, 5)

    def forward(self, images):
        return self.fc(self.layer(self.patches(images).flatten(2).transpose(1, 2)).mean(1))


def assert_exported(tmp_path, model, shape=SHAPE):
    """The file gives the network's logits, for another number of images than it was made with."""
    path = tmp_path / "out.onnx"
    assert "MB, the full network, logits in onnxruntime" in export(model, path, shape)
    images = torch.randn(5, *shape)
    with torch.no_grad():
        assert_close(run_onnx(path, images), copy.deepcopy(model).eval()(images))


@pytest.mark.parametrize("keys", [{}, {"rule": "td", "rho": 0.9, "prune_rate": 0.75}, {"rule": "fine_tune"}])
def test_a_network_with_wired_layers(tmp_path, keys):
    torch.manual_seed(0)
    model = Wired(**keys).train()
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    assert_exported(tmp_path, model)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not {"forward", "blocks"} & model.graph.__dict__.keys()


class Mask(nn.Module):
    def forward(self, weight):
        return weight * (weight > 0)


def convolution(change):
    torch.manual_seed(0)
    return nn.Sequential(change(nn.Conv2d(3, 8, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 5))


def masked(layer):
    return nn.utils.parametrize.register_parametrization(layer, "weight", Mask())


NETWORKS = {
    "dense": lambda: convolution(lambda layer: layer),
    "mask": lambda: convolution(masked),
    "weight_norm": lambda: convolution(parametrizations.weight_norm),
    "weight_norm_of_old": lambda: convolution(weight_norm),
    "attention": Attention,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_a_users_own(tmp_path, name):
    assert_exported(tmp_path, NETWORKS[name]())


def test_a_subclass_with_a_forward_pass_of_its_own(tmp_path):
    class Doubled(MobileNetV1Like):
        def forward(self, images):
            return 2 * super().forward(images)

    model = small_mobilenet(image_size=16)
    model.__class__ = Doubled
    assert_exported(tmp_path, model)


class Branching(Wired):
    def forward(self, images):
        logits = super().forward(images)
        return logits * 2 if logits.sum() > 0 else logits


class Tuple(Wired):
    def forward(self, images):
        return super().forward(images), images


class Raising(Wired):
    def forward(self, images):
        raise TypeError("no such\nthing")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Branching, r"Branching cannot be exported as ONNX: its forward method depends on the "
         r"values of tensors, .* \(test_export_plain.py, line \d+: return logits \* 2 if"),
        (Tuple, r"Tuple must return logits \(images, classes\); for 2 images it returned tuple"),
        (Raising, r"Raising does not run on images of 3×16×16 \(no such\)$"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_has_one_message(tmp_path, capfd, caplog, kind, message):
    model = kind()
    with pytest.raises(ValueError, match=message) as refused:
        export(model, tmp_path / "out.onnx", SHAPE)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert not list(tmp_path.iterdir())
    assert model.training and "forward" not in model.graph.__dict__


def test_a_missing_package_and_the_other_ending(tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"\.safetensors is for MobileNet graphs; this network can be exported as"
    ):
        export(Wired(), tmp_path / "out.safetensors", SHAPE)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(WiringError, match="export needs onnxscript: pip install onnx onnxscript"):
        export(Wired(), tmp_path / "out.onnx", SHAPE)


def test_the_command(write_app, tmp_path, capsys, caplog):
    """A network of the user's own is trained and exported; one that cannot be is refused."""
    caplog.set_level(logging.INFO)
    app = f"app:{write_app(model='tests.models.test_export_plain:Wired', graph='dnw')}"
    checkpoint = tmp_path / "checkpoints" / "tiny" / "last.pt"
    assert runner.main([app, "--num_epochs", "1", "--topk", "1"]) == 0, capsys.readouterr().err
    resumed = [app, "--resume", str(checkpoint), "--topk", "1", "--export", str(tmp_path / "out.onnx")]
    assert runner.main(resumed) == 0, capsys.readouterr().err
    assert f"written: {tmp_path}/out.onnx: 0.0" in caplog.text
    images = torch.randn(3, *SHAPE)
    model = Wired()
    load_weights(checkpoint, model)
    with torch.no_grad():
        assert_close(run_onnx(tmp_path / "out.onnx", images), model.eval()(images))
    assert runner.main([*resumed, "--model", "tests.models.test_export_plain:Branching"]) == 2
    error = capsys.readouterr().err
    assert "Branching cannot be exported as ONNX" in error and "Traceback" not in error
