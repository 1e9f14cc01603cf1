"""Wirings that keep no edge: they train, are recorded, profiled and evaluated; their logits are constant."""

import json

import numpy as np
import pytest
import torch

import runner
from genutil.checkpoint import load_weights
from genutil.config import load_config
from models import build_model
from tests.conftest import SMALL_STAGES
from tests.helpers.engines import INSTALLED
from wirings.compacting import compact

NETWORKS = {
    "static": {"model": "models.graphs.neuralgraph:StaticNeuralGraph"},
    "discrete": {"model": "models.graphs.neuralgraph:DiscreteTimeNeuralGraph", "setting": "discrete_time"},
    "continuous": {"model": "models.graphs.neuralgraph:ContinuousTimeNeuralGraph", "setting": "continuous"},
    "mobilenet": {"model": "models.graphs.mobilenetv1like:MobileNetV1Like"},
    "small mobilenet": {"model": "models.graphs.mobilenetv1like:MobileNetV1Like", "small": True},
}
WITHOUT_EDGES = {
    "prune_rate": 1.0,
    "data": "tests.tiny_data:FewImages",
    "num_epochs": 1,
    "topk": [1],
    "record_wiring": True,
}
RULES = ("dnw", "random", "dnw_no_update", "td", "reg_td")


@pytest.fixture
def run(capsys):
    def run(path, *argv):
        assert runner.main([f"app:{path}", *map(str, argv)]) == 0
        folder = capsys.readouterr().out.rstrip().rsplit(" ", 1)[-1]
        with open(f"{folder}/results.json") as file:
            return json.load(file), folder

    return run


@pytest.mark.usefixtures("small_mobilenet")
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("graph", RULES)
def test_every_rule_trains_without_edges(write_app, tmp_path, run, graph, network):
    rho = {"rho": 1.0} if "td" in graph else {}
    app = write_app(graph=graph, **rho, **WITHOUT_EDGES, **NETWORKS[network])
    trained, folder = run(app)
    assert (trained["edges"], trained["effective_edges"]) == (0, 0)
    assert np.isfinite(trained["CELoss"])
    with np.load(f"{folder}/wiring.npz") as record:
        assert record.files
    config = load_config(app)
    model = build_model(config).eval()
    load_weights(tmp_path / "checkpoints" / "tiny" / "last.pt", model)
    images = torch.randn(2, 3, config.image_size, config.image_size)
    with torch.no_grad():
        logits = model(images)
        for engine in INSTALLED:
            torch.testing.assert_close(compact(model, engine)(images), logits, rtol=1e-4, atol=1e-5)
    if network != "continuous":  # there, a node keeps its first state
        assert torch.equal(*logits)


@pytest.mark.usefixtures("small_mobilenet")
@pytest.mark.parametrize("network", ["discrete", "small mobilenet"])
def test_the_command_evaluates_without_edges(write_app, tmp_path, run, network):
    app = write_app(**WITHOUT_EDGES, **NETWORKS[network])
    trained, _ = run(app)
    last = tmp_path / "checkpoints" / "tiny" / "last.pt"
    for engine in ([], ["--fast_eval"], ["--fast_eval", "--engine", "csr"]):
        found, _ = run(app, "--evaluate", "--resume", last, *engine)
        assert found["CELoss"] == pytest.approx(trained["CELoss"], rel=1e-4)


@pytest.mark.usefixtures("small_mobilenet")
@pytest.mark.parametrize("network", ["static", "mobilenet"])
def test_a_fixed_wiring_without_edges(write_app, tmp_path, run, network):
    keys = {"num_epochs": 1, "data": "tests.tiny_data:FewImages", "topk": [1], **NETWORKS[network]}
    run(write_app("first.yml", **keys))
    first = tmp_path / "checkpoints" / "first" / "last.pt"
    tuned, _ = run(write_app(graph="fine_tune", prune_rate=1.0, use_graph=str(first), **keys))
    assert tuned["edges"] == 0


@pytest.mark.usefixtures("small_mobilenet")
def test_a_rate_so_high_that_the_small_stages_keep_nothing(write_app, tmp_path, run):
    """The first stage of a MobileNet graph has 96 entries: at 0.95 it keeps none, and the last one some."""
    assert SMALL_STAGES[0][:2] == (8, 12)
    app = write_app(
        prune_rate=0.95, num_epochs=1, topk=[1], data="tests.tiny_data:FewImages", **NETWORKS["mobilenet"]
    )
    trained, _ = run(app)
    assert trained["edges"] > 0
    assert trained["effective_edges"] == 0
    last = tmp_path / "checkpoints" / "tiny" / "last.pt"
    fast, _ = run(app, "--evaluate", "--resume", last, "--fast_eval")
    assert fast["CELoss"] == pytest.approx(trained["CELoss"], rel=1e-4)
