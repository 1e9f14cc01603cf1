"""Names of configurations, the numbers they stand for, and the weights that stay."""

import pytest
import torch
from torch import nn

from imagenet_sparsity_experiments.options import ARCHITECTURES, FAMILIES, configuration_keys
from models import sparse_resnet
from tests.imagenet_sparsity_experiments.toy import build
from wirings.layers import WiredLayer
from wirings.profiling import profile
from wirings.rules.td import TargetedDropout
from wirings.topk import num_kept
from wirings.wiring import Wiring

NAMES = [
    "classic",
    "fanin",
    "dense",
    *(f"{family}{kept}" for family in FAMILIES for kept in range(10, 100, 10)),
]
KEPT = {"allsparse10": 2_550_318, "ignorefirst10": 2_558_785}
"""Of ResNet-50: the sum over all layers of numel − int(prune_rate · numel)."""
EACH_ARCHITECTURE = [
    (arch, name) for arch in ARCHITECTURES for name in ("dense", "ignorefirst10", "tdsparse10")
]


@pytest.mark.parametrize(
    ("arch", "name"), sorted({*EACH_ARCHITECTURE, *(("resnet18", name) for name in NAMES)})
)
def test_all_configurations_build(arch, name):
    with torch.device("meta"):  # sizes alone
        network = build(name, arch)
    layers = {key: module for key, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    selecting = {key for key, layer in layers.items() if isinstance(layer, WiredLayer)}
    if name in ("classic", "fanin", "dense"):
        assert not selecting
    else:
        assert selecting == set(layers) - ({"conv1"} if name.startswith("ignorefirst") else set())
        kept = int(name.lstrip("abcdefghijklmnopqrstuvwxyz"))
        for key in selecting:
            rule = layers[key].wiring
            assert rule.num_edges == num_kept(rule.weight.numel(), (100 - kept) / 100)
            assert isinstance(rule, TargetedDropout) == name.startswith("tdsparse")
            if name.startswith("tdsparse"):
                assert rule.rho == (100 - kept) / 100
    assert layers["fc"].weight.shape == (1000, 512 if arch in ("resnet18", "resnet34") else 2048, 1, 1)


def test_the_options_list_all_architectures():
    assert set(ARCHITECTURES) == set(sparse_resnet.ARCHITECTURES)


@pytest.mark.parametrize("kept", [1, 7, 33, 99])
def test_any_percentage(kept):
    for family in FAMILIES:
        keys = configuration_keys(f"{family}{kept}")
        assert keys["prune_rate"] == (100 - kept) / 100
        assert keys["model_args"] == ({"exclude": ["conv1"]} if family == "ignorefirst" else {})


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("allsparse0", "allsparse"), ("allsparse100", "allsparse10"), ("allspars20", "allsparse20"),
        ("allsparse05", "allsparse"), ("dens", "dense"), ("ignorefirst", "ignorefirst"), ("x", ""),
    ],
)  # fmt: skip
def test_others_are_refused(name, near):
    with pytest.raises(ValueError, match=f"must be classic .*, got {name}.*{near}"):
        configuration_keys(name)


@pytest.mark.parametrize(("name", "kept"), KEPT.items())
def test_kept_weights_of_resnet50(name, kept):
    torch.manual_seed(0)
    model = build(name, "resnet50")
    masks = Wiring(model).adjacency()
    counts = {}
    for key, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            numel = layer.weight.numel()
            expected = numel if key == "conv1" and name == "ignorefirst10" else numel - int(0.9 * numel)
            counts[key] = int(masks[f"{key}.weight"].sum()) if f"{key}.weight" in masks else numel
            assert counts[key] == expected, key
    assert (sum(counts.values()), len(counts)) == (kept, 54)


def test_dense_costs_of_resnet50():
    """4.089 G multiply-accumulates at 224 px, the usual figure of the version 1.5."""
    cost = profile(build("dense", "resnet50"), 224)
    assert cost.macs == 4_089_184_256
    assert sum(layer.params for layer in cost.per_layer if layer.macs) == 25_502_912


@pytest.mark.parametrize(
    ("name", "mode"),
    [("classic", "fan_out"), ("fanin", "fan_in"), ("dense", "fan_in"), ("allsparse30", "fan_in")],
)
def test_first_weights(name, mode):
    torch.manual_seed(0)
    model = build(name)
    for key in ("conv1", "layer3.0.conv1", "layer4.0.downsample.0", "fc"):
        weight = model.get_submodule(key).weight
        targets, sources, height, width = weight.shape
        fan = (sources if mode == "fan_in" else targets) * height * width
        assert weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.03), key
        assert weight.mean().abs() < 0.1 * weight.std()
