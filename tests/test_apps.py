"""Every shipped experiment: its values against the published ones, its cost, a step, both evaluations."""

import json
import logging

import pytest
import torch
import torch.nn.functional as F
import yaml

import runner
from genutil.checkpoint import save_checkpoint
from genutil.config import load_config
from models import build_model
from tests.complexity import APPS, GOLDEN, cost_of
from tests.conftest import ROOT, SMALL_STAGES
from tests.helpers.published_values import PUBLISHED

STAGES = "models.graphs.mobilenetv1like.STAGES"
SMALL_GRAPH = ["--dim", "80", "--downsample_dim", "8", "--feature_dim", "10"]
FULL_SIZE = [
    "apps/small_scale/static_dnw.yml",
    "apps/small_scale/discrete_time_dnw.yml",
    "apps/small_scale/continuous_time_dnw.yml",
    "apps/medium_scale/mobilenetv1_ft_x225.yml",
    "apps/large_scale/mobilenetv1_dnw_x225.yml",
]
"""One of each family; networks without a small form are of full size anyway."""


@pytest.mark.parametrize("app", PUBLISHED)
def test_resolved_values_are_the_published_ones(app):
    config = load_config(ROOT / app)
    assert {key: getattr(config, key) for key in PUBLISHED[app]} == PUBLISHED[app]


def test_all_published_files_are_there():
    assert set(PUBLISHED) == {app for app in APPS if "/quickstart/" not in app}
    assert len(PUBLISHED) == 26


@pytest.mark.parametrize("app", APPS)
def test_a_file_says_only_what_is_its_own(app):
    own = yaml.safe_load((ROOT / app).read_text())
    assert "_base_" in own
    assert len(own) <= 8


@pytest.mark.parametrize("app", APPS)
def test_cost_and_gradients(app):
    """Of the network in full size, which is built once, since that takes longer than all that is asked of it.

    A change of the golden file, which `python -m tests.complexity` writes, needs a reason.
    """
    config = load_config(ROOT / app)
    torch.manual_seed(0)
    model = build_model(config)
    cost = cost_of(model)
    assert cost == json.loads(GOLDEN.read_text())[app]
    if "small_scale" in app:  # 41,458 weights in use where every node has an outgoing edge
        nodes = (cost["params"] - 32_000 - 1_248 - 1_010) / 9
        assert cost["edges"] == 32_000
        assert nodes == int(nodes) and nodes <= 800
        if "dnw" in app:
            assert cost["params"] == 41_458

    images = torch.randn(2, config.in_channels, 32, 32)
    F.cross_entropy(model(images), torch.tensor([1, 2])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """Checkpoints of a complete graph, small or in full size, for the experiments that start from one."""
    paths = {}

    def checkpoint(size):
        if size not in paths:
            paths[size] = tmp_path_factory.mktemp("saved") / "complete.pt"
            torch.manual_seed(0)
            model = build_model(load_config(ROOT / "apps/medium_scale/mobilenetv1_complete_graph.yml"))
            save_checkpoint(paths[size], {"model": model.state_dict()})
        return paths[size]

    return checkpoint


SLOW_APPS = ("apps/resnet/resnet50_ignorefirst10.yml", "apps/resnet/resnet50_tdsparse10.yml")
"""The third file of this network is run by `make test`."""
SIZED = [
    pytest.param(app, "small", marks=pytest.mark.slow) if app in SLOW_APPS else (app, "small") for app in APPS
]
SIZED += [pytest.param(app, "full", marks=pytest.mark.slow) for app in FULL_SIZE]


@pytest.mark.parametrize(("app", "size"), SIZED)
def test_every_app_trains_evaluates_and_compacts(
    app, size, tmp_path, capsys, caplog, complete, monkeypatch, narrow_resnet18
):
    """The command on random images: an epoch of one step, then both evaluations, which agree."""
    config = load_config(ROOT / app)
    save, log = tmp_path / "checkpoints", tmp_path / "runs"
    file, last = ROOT / app, "last.pt"
    if "/resnet/" in app:  # by ResNet-18 on small images
        file, last = tmp_path / f"{config.name}.yml", "checkpoint.pth.tar"
        small = {"image_size": 32, "warmup": 0, "model_args": {**config.model_args, "arch": "resnet18"}}
        file.write_text(yaml.safe_dump({"_base_": str(ROOT / app), **small}))
    argv = [f"app:{file}", "--data", "tests.tiny_data:FewImages", "--num_epochs", "1", "--gpus"]
    argv += ["--save_dir", str(save), "--log_dir", str(log)]
    if size == "small":
        monkeypatch.setattr(STAGES, SMALL_STAGES)
        argv += SMALL_GRAPH if "neuralgraph" in config.model else []
    for key in ("use_graph", "use_init"):
        if getattr(config, key) is not None:
            argv += [f"--{key}", str(complete(size))]

    def run(*further):
        assert runner.main([*argv, *further]) == 0, capsys.readouterr().err
        folder = capsys.readouterr().out.rstrip().rsplit(" ", 1)[-1]
        with open(f"{folder}/results.json") as file:
            return json.load(file)

    caplog.set_level(logging.INFO)
    trained = run()
    assert "no effect" not in caplog.text
    assert caplog.text.count("| total ") == (0 if config.skip_profiling else 2)
    evaluate = ["--evaluate", "--resume", str(save / str(config.name) / last)]
    plain = run(*evaluate)
    fast = run(*evaluate, "--fast_eval")
    assert plain["engine"] == "plain"
    assert (fast["engine"] == "native") == config.model.endswith("MobileNetV1Like")
    assert plain["CELoss"] == pytest.approx(trained["CELoss"], rel=1e-6)
    assert fast["CELoss"] == pytest.approx(plain["CELoss"], rel=1e-3)
    assert fast["top1_accuracy"] == plain["top1_accuracy"]
    assert plain["images"] == fast["images"] == 3
    assert fast["latency_ms"] > 0
    for key in ("params", "macs", "edges", "effective_edges", "live_nodes"):
        assert plain.get(key) == fast.get(key) == trained.get(key)
        # These numbers are not known of networks that do not report their structure.
        assert key in plain or config.model.startswith(("models.wired", "models.sparse_resnet"))
