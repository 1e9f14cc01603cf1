"""Names of configurations, the numbers they stand for, and the weights that stay."""

import pytest
import torch
from torch import nn

from imagenet_sparsity_experiments.configurations import ARCHITECTURES, FAMILIES, find_configuration
from imagenet_sparsity_experiments.density import (
    compare,
    density_table,
    masks_in_use,
    measure_density,
    total,
)
from imagenet_sparsity_experiments.resnet import SparseResNet
from wirings.layers import WiredLayer
from wirings.rules.td import TargetedDropout
from wirings.topk import num_kept

NAMES = [
    "classic",
    "fanin",
    "dense",
    *(f"{family}{kept}" for family in FAMILIES for kept in range(10, 100, 10)),
]
KEPT = {"allsparse10": 2_550_318, "ignorefirst10": 2_558_785}
"""Of ResNet-50: the sum over all layers of numel − int(prune_rate · numel)."""


def network(arch, name, **sizes):
    with torch.device("meta"):  # sizes alone
        return SparseResNet(arch, find_configuration(name), **sizes)


EACH_ARCHITECTURE = [
    (arch, name) for arch in ARCHITECTURES for name in ("dense", "ignorefirst10", "tdsparse10")
]


@pytest.mark.parametrize(
    ("arch", "name"), sorted({*EACH_ARCHITECTURE, *(("resnet18", name) for name in NAMES)})
)
def test_all_configurations_build(arch, name):
    layers = {
        key: module for key, module in network(arch, name).named_modules() if isinstance(module, nn.Conv2d)
    }
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
                assert rule.rho == rule.prune_rate == (100 - kept) / 100
    assert layers["fc"].weight.shape == (1000, 512 if arch in ("resnet18", "resnet34") else 2048, 1, 1)


@pytest.mark.parametrize("kept", [1, 7, 33, 99])
def test_any_percentage(kept):
    for family in FAMILIES:
        configuration = find_configuration(f"{family}{kept}")
        assert configuration.prune_rate == (100 - kept) / 100
        assert configuration.first_prune_rate == (0 if family == "ignorefirst" else (100 - kept) / 100)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("allsparse0", "allsparse"), ("allsparse100", "allsparse10"), ("allspars20", "allsparse20"),
        ("allsparse05", "allsparse"), ("dens", "dense"), ("ignorefirst", "ignorefirst"), ("x", ""),
    ],
)  # fmt: skip
def test_others_are_refused(name, near):
    with pytest.raises(ValueError, match=f"must be classic .*, got {name}.*{near}"):
        find_configuration(name)


@pytest.mark.parametrize(("name", "kept"), KEPT.items())
def test_kept_weights_of_resnet50(name, kept):
    torch.manual_seed(0)
    model = SparseResNet("resnet50", find_configuration(name))
    masks = masks_in_use(model)
    for key, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            numel = layer.weight.numel()
            expected = numel if key == "conv1" and name == "ignorefirst10" else numel - int(0.9 * numel)
            assert (int(masks[key].sum()) if key in masks else numel) == expected, key
    layers = measure_density(model, 64)
    assert (total(layers).kept, total(layers).weights) == (kept, 25_502_912)
    assert len(layers) == 54


def test_dense_costs_of_resnet50():
    """4.089 G multiply-accumulates at 224 px, the usual figure of the version 1.5."""
    model = SparseResNet("resnet50", find_configuration("dense"))
    assert total(measure_density(model, 224)).macs == 4_089_184_256


@pytest.mark.parametrize(
    ("name", "mode"),
    [("classic", "fan_out"), ("fanin", "fan_in"), ("dense", "fan_in"), ("allsparse30", "fan_in")],
)
def test_first_weights(name, mode):
    torch.manual_seed(0)
    model = SparseResNet("resnet18", find_configuration(name))
    for key in ("conv1", "layer3.0.conv1", "layer4.0.downsample.0", "fc"):
        weight = model.get_submodule(key).weight
        targets, sources, height, width = weight.shape
        fan = (sources if mode == "fan_in" else targets) * height * width
        assert weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.03), key
        assert weight.mean().abs() < 0.1 * weight.std()


def test_the_table_tells_what_is_new():
    torch.manual_seed(0)
    model = SparseResNet("resnet18", find_configuration("ignorefirst50"), num_classes=4)
    before = masks_in_use(model)
    with torch.no_grad():
        weight = model.fc.weight.view(-1)
        place = int((~before["fc"].view(-1)).nonzero()[0])
        weight[place] = 100.0
    measured = measure_density(model, 32)
    layers = {layer.name: layer for layer in compare(measured, before, masks_in_use(model))}
    assert [layer.macs for layer in layers.values()] == [layer.macs for layer in measured]
    assert layers["fc"].fresh == total(list(layers.values())).fresh == 1
    table = density_table(list(layers.values()))
    assert "| newly kept |" in table
    assert "| conv1 " in table
    assert "100.00 %" in table
    assert "newly kept" not in density_table(measure_density(model, 32))
