"""The network is torchvision's ResNet: the same names, and with the same weights the same logits."""

import pytest
import torch
from torchvision import models

from genutil.checkpoint import read_checkpoint
from genutil.config import load_config
from genutil.exceptions import CheckpointError, ConfigError
from models import build_model
from models.compiling import compile_network, use_channels_last
from models.sparse_resnet import ARCHITECTURES
from models.transfer import apply_adapted_weights
from tests.conftest import ROOT
from tests.imagenet_sparsity_experiments import toy
from tests.models.test_compiling import assert_same, outcome
from wirings.compacting import compact
from wirings.layers import WiredLayer
from wirings.wiring import unwire

IMAGES = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))


def build(name="dense", arch="resnet18"):
    torch.manual_seed(1)
    return toy.build(name, arch, num_classes=6)


def load_pretrained(network, path, new_classifier=False):
    apply_adapted_weights(read_checkpoint(path), network, str(path), new_classifier=new_classifier)


def theirs(arch="resnet18", num_classes=6):
    torch.manual_seed(2)
    return models.get_model(arch, num_classes=num_classes)


def evaluated(network):
    with torch.no_grad():
        return network.eval()(IMAGES)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_weights_of_torchvision_give_its_logits(arch, tmp_path, caplog):
    source, network = theirs(arch), build(arch=arch)
    for module in source.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    torch.save(source.state_dict(), tmp_path / "theirs.pth")
    load_pretrained(network, str(tmp_path / "theirs.pth"), new_classifier=False)
    torch.testing.assert_close(evaluated(network), evaluated(source) - source.fc.bias, rtol=1e-4, atol=1e-5)
    assert "the bias of its classifier is dropped" in caplog.text
    assert set(network.state_dict()) == set(source.state_dict()) - {"fc.bias"}


def test_weights_of_old_versions_count_no_batches(tmp_path):
    weights = {k: v for k, v in theirs().state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(weights, tmp_path / "old.pth")
    load_pretrained(build(), str(tmp_path / "old.pth"), new_classifier=False)


def test_a_classifier_for_other_classes_starts_anew_or_is_refused(tmp_path, caplog):
    path, network = str(tmp_path / "theirs.pth"), build()
    torch.save(theirs(num_classes=9).state_dict(), path)
    with pytest.raises(CheckpointError, match="for 9 classes, this one for 6; set output_size"):
        load_pretrained(network, path, new_classifier=False)
    before = network.fc.weight.clone()
    load_pretrained(network, path, new_classifier=True)
    assert torch.equal(network.fc.weight, before)
    assert "own classifier is used" in caplog.text


def test_another_architecture_is_refused(tmp_path):
    torch.save(theirs("resnet34").state_dict(), tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError, match="does not fit this network"):
        load_pretrained(build(), str(tmp_path / "theirs.pth"), new_classifier=True)


def test_a_published_checkpoint(tmp_path):
    source, network = build("allsparse20"), build("allsparse20")
    content = {
        "epoch": 100, "arch": "resnet18", "best_prec1": torch.tensor(74.0), "optimizer": {},
        "state_dict": {f"module.{name}": value for name, value in source.state_dict().items()},
    }  # fmt: skip
    with torch.no_grad():
        network.conv1.weight.zero_()
    torch.save(content, tmp_path / "model_best.pth.tar", _use_new_zipfile_serialization=False)
    load_pretrained(network, str(tmp_path / "model_best.pth.tar"), new_classifier=False)
    assert torch.equal(evaluated(network), evaluated(source))


@pytest.mark.parametrize("name", ["allsparse10", "ignorefirst30", "tdsparse20"])
@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_every_parameter_has_a_gradient(arch, name):
    network = build(name, arch)
    network(IMAGES).square().sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.any(), key


@pytest.mark.parametrize("name", ["dense", "allsparse10", "tdsparse20"])
def test_channels_last_changes_rounding_alone(name):
    network = build(name)
    torch.nn.init.uniform_(network.bn1.weight)
    plain = evaluated(network)
    use_channels_last(network)
    torch.testing.assert_close(evaluated(network), plain, rtol=1e-4, atol=1e-5)
    seen = []
    network.layer2.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    evaluated(network)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["allsparse10", "tdsparse20"])
def test_unwired_networks_give_the_same_logits(name):
    network = build(name)
    plain = evaluated(network)
    assert torch.equal(evaluated(unwire(network)), plain)
    assert not any(isinstance(module, WiredLayer) for module in network.modules())


@pytest.mark.parametrize("name", ["allsparse10", "ignorefirst20", "dense"])
def test_compact_networks_give_the_same_logits(name):
    network = build(name)
    plain = evaluated(network)
    with torch.no_grad():
        torch.testing.assert_close(compact(network)(IMAGES), plain, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ignorefirst10", "dense", "tdsparse30"])
def test_compiled_networks_have_the_same_logits_and_gradients(name):
    torch.compiler.reset()
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    expected, network = outcome(build(name).double(), images), build(name).double()
    compile_network(network, torch.device("cpu"), backend="aot_eager")
    assert_same(outcome(network, images), expected, 1e-9)


APP = ROOT / "apps/resnet/resnet50_allsparse10.yml"
SMALL = {"image_size": 32, "output_size": 3, "topk": [1]}


@pytest.mark.parametrize(
    ("overrides", "layers"),
    [
        ({}, 21), ({"prune_rate": 0.0}, 0), ({"prune_rate": 0.0, "budget": {"*": 0.5}}, 21),
        ({"model_args": {"arch": "resnet18", "exclude": ["conv1", "layer4.*"]}}, 15),
        ({"graph": "random", "budget": "erk"}, 21),
    ],
)  # fmt: skip
def test_keys_of_an_experiment(overrides, layers):
    keys = {**SMALL, "model_args": {"arch": "resnet18"}, **overrides}
    network = build_model(load_config(APP, keys))
    wired = [module for module in network.modules() if isinstance(module, WiredLayer)]
    assert len(wired) == layers


def test_grey_images():
    network = build_model(load_config(APP, {**SMALL, "model_args": {"arch": "resnet18"}, "in_channels": 1}))
    assert network(IMAGES[:, :1]).shape == (2, 3)


def test_an_unknown_architecture_is_named():
    with pytest.raises(ConfigError, match="got resnet51; did you mean resnet50"):
        build_model(load_config(APP, {"model_args": {"arch": "resnet51"}}))
