"""Every shipped experiment: resolved against the published values, built, trained for a step."""

import pytest
import torch
import torch.nn.functional as F
import yaml

from genutil.config import load_config
from models import build_model
from models.profiling import profile
from tests.conftest import ROOT

APPS = sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "apps").glob("*/*.yml") if path.parent.name != "_base"
)
TINY = {
    "data": "data.cifar10:CIFAR10", "batch_size": 512, "test_batch_size": 512, "workers": 8, "lr": 0.1,
    "lr_scheduler": "multistep", "multistep_lr_milestones": [80, 120], "multistep_lr_gamma": 0.1,
    "optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "num_epochs": 160, "output_size": 10,
    "image_size": 32, "in_channels": 3, "topk": [1, 5], "seed": 1996, "prune_rate": 0.95, "dim": 800,
    "downsample_dim": 32, "feature_dim": 100, "layers": 5, "save_dir": "./checkpoints",
    "log_dir": "./runs", "skip_profiling": True,
}  # fmt: skip
SETTINGS = {
    "static": ("StaticNeuralGraph", "static"),
    "discrete_time": ("DiscreteTimeNeuralGraph", "discrete_time"),
    "continuous_time": ("ContinuousTimeNeuralGraph", "continuous"),
}
PUBLISHED = {
    f"apps/small_scale/{name}_{suffix}.yml": {
        **TINY, "model": f"models.graphs.neuralgraph:{model}", "setting": setting, "graph": graph
    }
    for name, (model, setting) in SETTINGS.items()
    for suffix, graph in (("dnw", "dnw"), ("random_graph", "random"))
}  # fmt: skip


@pytest.mark.parametrize("app", PUBLISHED)
def test_resolved_values_are_the_published_ones(app):
    config = load_config(ROOT / app)
    assert {key: getattr(config, key) for key in PUBLISHED[app]} == PUBLISHED[app]


def test_all_published_files_are_there():
    assert set(PUBLISHED) == {app for app in APPS if app.startswith("apps/small_scale/")}


@pytest.mark.parametrize("app", APPS)
def test_a_file_says_only_what_is_its_own(app):
    own = yaml.safe_load((ROOT / app).read_text())
    assert "_base_" in own
    assert len(own) <= 8


@pytest.mark.parametrize("app", APPS)
def test_every_app_builds_and_takes_a_step(app):
    config = load_config(ROOT / app)
    torch.manual_seed(0)
    model = build_model(config)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=config.momentum)
    images = torch.randn(2, config.in_channels, config.image_size, config.image_size)
    labels = torch.tensor([1, 2])
    before = {name: value.clone() for name, value in model.named_parameters()}
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    optimizer.step()
    assert any(not torch.equal(before[name], value) for name, value in model.named_parameters())
    model.eval()
    assert model(images).shape == (2, config.output_size)
    assert profile(model).edges == 32_000


@pytest.mark.parametrize("app", PUBLISHED)
def test_parameters_of_the_published_networks(app):
    """41,458 weights in use where every node has an outgoing edge."""
    torch.manual_seed(0)
    counted = profile(build_model(load_config(ROOT / app)))
    nodes = (counted.params - 32_000 - 1_248 - 1_010) / 9
    assert nodes == int(nodes) and nodes <= 800
    if "dnw" in app:
        assert counted.params == 41_458
