"""Small graph networks with random wirings: weights as after a training, with all kinds of holes."""

import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from genutil.config import load_config
from models import build_model
from tests.conftest import ROOT

STAGES = ((4, 6, 1, 1), (6, 8, 2, 2), (8, 10, 2, 4))
"""Sizes of a MobileNet graph of 24 nodes."""
WIRINGS = st.sampled_from(["some", "few", "one", "none", "all", "columns"])


def wiring(kind, shape, generator):
    """A weight matrix with this kind of holes."""
    weight = torch.randn(shape, generator=generator)
    part = torch.rand(shape, generator=generator)
    if kind == "some":
        return weight * (part < 0.3)
    if kind == "few":
        return weight * (part < 0.05)
    if kind == "one":
        return weight * (part == part.max())
    if kind == "columns":
        return weight * (torch.rand(1, shape[1], 1, 1, generator=generator) < 0.2)
    return weight * (kind == "all")


def randomise(model, kinds, seed):
    """Weights as after a training: norms with running statistics, wirings with holes."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d)):
            module.weight.data = torch.rand(module.num_features, generator=generator) + 0.5
            module.bias.data = 0.3 * torch.randn(module.num_features, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = 0.3 * torch.randn(module.num_features, generator=generator)
            module.running_var = torch.rand(module.num_features, generator=generator) + 0.5
    rules = [layer.rule for layer in model.wired_layers()]
    for kind, rule in zip(kinds, rules, strict=False):
        rule.mask.copy_(torch.ones_like(rule.mask))
        weight = wiring(kind, rule.weight.shape, generator)
        rule.weight.data = weight
        rule.mask.copy_((weight != 0).float())


def build(app, **keys):
    """The network of an experiment of `apps/` at seed 0, with some keys changed."""
    torch.manual_seed(0)
    return build_model(load_config(ROOT / "apps" / app, keys))


def small_mobilenet(seed=0, kinds=("some",) * 4, image_size=224, small=False):
    """A MobileNet graph of STAGES, whose stem has stride 2 above 64 px."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.graphs.mobilenetv1like.STAGES", STAGES)
        app = (
            "large_scale/mobilenetv1_dnw_small_x225.yml" if small else "large_scale/mobilenetv1_dnw_x225.yml"
        )
        model = build(app, graph="random", image_size=image_size, output_size=7)
    randomise(model, kinds, seed)
    return model.eval()
