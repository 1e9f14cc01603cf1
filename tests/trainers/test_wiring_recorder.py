"""The recorded wiring of a training: its steps, its content, and that the training does not depend on it."""

import json

import numpy as np
import pytest
import torch

import runner
from genutil.checkpoint import load_weights, read_checkpoint
from genutil.config import load_config
from genutil.runs.wiring_record import read_record
from models import build_model
from models.wiring_state import wiring_layout, wiring_state
from tests.conftest import ROOT
from tests.helpers.processes import run_together
from wirings.checksum import digest
from wirings.structure import wired_layers

SETTINGS = {
    "static_dnw": "models.graphs.neuralgraph:StaticNeuralGraph",
    "discrete_time_dnw": "models.graphs.neuralgraph:DiscreteTimeNeuralGraph",
    "continuous_time_dnw": "models.graphs.neuralgraph:ContinuousTimeNeuralGraph",
}


class Dense(torch.nn.Module):
    def __init__(self, output_size, image_size):
        super().__init__()
        self.linear = torch.nn.Linear(3 * image_size**2, output_size)

    def forward(self, images):
        return self.linear(images.flatten(1))


def run(app, *argv):
    return runner.main([f"app:{app}", "--record_wiring", *map(str, argv)])


def record(tmp_path, runs="runs"):
    (path,) = (tmp_path / runs).glob("*/wiring")
    return read_record(path)


def steps(found):
    return [state.numbers["step"] for state in found.states]


def test_states_at_the_first_steps_and_after_each_epoch(write_app, tmp_path):
    assert run(write_app(num_images=None, batch_size=2), "--num_epochs", 2) == 0  # 11 steps an epoch
    found = record(tmp_path)
    assert steps(found) == [0, 1, 2, 4, 8, 11, 22]
    assert [state.numbers["epoch"] for state in found.states][-3:] == [8 / 11, 1, 2]
    lines = [json.loads(line) for line in next((tmp_path / "runs").glob("*/metrics.jsonl")).open()]
    for state, val in zip(found.states[-2:], lines[1::2], strict=True):
        assert state.numbers["val_accuracy"] == val["top1_accuracy"]
        assert state.numbers["val_loss"] == val["CELoss"]
    assert found.states[-1].numbers["train_accuracy"] == pytest.approx(lines[2]["top1_accuracy"])
    images = [1, 1, 2, 4, 3]  # batches of 2 between the states of the first epoch
    parts = [state.numbers["train_accuracy"] for state in found.states[1:6]]
    mean = sum(count * part for count, part in zip(images, parts, strict=True)) / 11
    assert mean == pytest.approx(lines[0]["top1_accuracy"])


def test_an_epoch_without_validation_has_no_numbers_of_an_earlier_one(write_app, tmp_path):
    assert run(write_app(batch_size=5), "--num_epochs", 3, "--validate_every", 2) == 0
    states = {state.numbers["epoch"]: state.numbers for state in record(tmp_path).states}
    assert ["val_accuracy" in states[epoch] for epoch in (1, 2, 3)] == [False, True, True]


def test_an_interval(write_app, tmp_path):
    assert run(write_app(batch_size=2), "--num_epochs", 2, "--record_interval", 5) == 0
    assert steps(record(tmp_path)) == [0, 5, 10, 11, 15, 20, 22]


@pytest.mark.parametrize("graph", ["dnw", "td"])
def test_the_last_state_is_that_of_the_network(write_app, tmp_path, graph):
    more = {"graph": "td", "rho": 0.5} if graph == "td" else {}
    app = write_app(**more)
    assert run(app) == 0
    config = load_config(app)
    model = build_model(config).eval()
    load_weights(tmp_path / "checkpoints" / "tiny" / "last.pt", model)
    state = record(tmp_path).states[-1].layers["graph"]
    used = model.graph().detach().flatten()
    assert np.array_equal(state.edge_indices, used.nonzero().flatten().numpy())
    torch.testing.assert_close(
        torch.from_numpy(state.weights), used[state.edge_indices], rtol=1e-3, atol=1e-6
    )
    assert np.array_equal(state.live, model.effective_edges().any(0).numpy())


@pytest.mark.parametrize("graph", ["dnw", "td"])
def test_a_training_is_the_same_with_and_without(write_app, tmp_path, graph):
    app = write_app(**({"graph": "td", "rho": 0.5} if graph == "td" else {}))
    assert run(app, "--name", "with", "--record_interval", 1) == 0
    assert runner.main([f"app:{app}", "--name", "without"]) == 0
    one, other = (read_checkpoint(tmp_path / "checkpoints" / n / "last.pt") for n in ("with", "without"))
    for key in ("model", "optimizer", "rng"):
        assert digest(one[key]) == digest(other[key])


def test_a_resumed_training_begins_a_record_of_its_own(write_app, tmp_path):
    app = write_app(batch_size=2, lr_scheduler="multistep")
    assert run(app, "--num_epochs", 1) == 0
    places = ["--log_dir", tmp_path / "later"]
    assert run(app, "--num_epochs", 2, "--resume", "auto", *places) == 0
    assert steps(record(tmp_path, "later")) == [11, 22]


def test_a_network_without_wired_layers_is_reported_and_not_recorded(write_app, tmp_path, caplog):
    dense = write_app(model="tests.trainers.test_wiring_recorder:Dense", output_size=10)
    assert run(dense, "--num_epochs", 1) == 0
    assert "record_wiring: Dense has no wired layer; nothing is recorded" in caplog.text
    assert not [*(tmp_path / "runs").glob("*/wiring")]


def test_several_processes_record_once(write_app, tmp_path):
    app = write_app(batch_size=4)
    argv = [f"app:{app}", "--record_wiring", "--record_interval", 2, "--num_epochs", 1]
    assert [ended.status for ended in run_together(2, argv, tmp_path)] == [0, 0]
    found = record(tmp_path)
    assert steps(found) == [0, 2, 4, 6]
    line = json.loads(next((tmp_path / "runs").glob("*/metrics.jsonl")).read_text().splitlines()[0])
    parts = [state.numbers["train_accuracy"] for state in found.states[1:]]
    assert np.average(parts, weights=[8, 8, 6]) == pytest.approx(line["top1_accuracy"])


def test_an_interval_without_a_record_is_refused(write_app, capsys):
    assert runner.main([f"app:{write_app()}", "--record_interval", "3"]) == 2
    assert "record_interval: counts the steps between two states" in capsys.readouterr().err


@pytest.mark.parametrize("name", SETTINGS)
def test_layout_of_the_tiny_classifiers(name, write_app):
    model = build_model(load_config(write_app(model=SETTINGS[name])))
    (layer,) = wiring_layout(model)
    assert (layer["targets"], layer["sources"]) == (80, 80)
    assert layer["acyclic"] == (name == "static_dnw")
    if layer["acyclic"]:
        assert [part["sources"] for part in layer["columns"]] == [[0, 8], [8, 32], [32, 56], [56, 80]]
        assert layer["columns"][0]["targets"] is None
        assert layer["outputs"] == [70, 80]
    else:
        assert [part["sources"] for part in layer["columns"]] == [[0, 8], [8, 70], [70, 80]]
        assert layer["outputs"] is None
    (state,) = wiring_state(model).values()
    assert state.live.shape == (80,)


@pytest.mark.parametrize("app", ["dnw_small_x15", "dnw_x225", "random_graph_x225"])
def test_layout_and_state_of_mobilenets(app, small_mobilenet):
    keys = {"image_size": 32, "output_size": 5, "topk": [1]}
    model = build_model(load_config(ROOT / f"apps/large_scale/mobilenetv1_{app}.yml", keys))
    layout, state = wiring_layout(model), wiring_state(model)
    assert [layer["name"] for layer in layout] == list(state) == [w.name for w in wired_layers(model)]
    for layer, wired in zip(layout, wired_layers(model), strict=True):
        covered = [number for part in layer["columns"] for number in range(*part["sources"])]
        assert covered == list(range(layer["sources"]))
        assert state[layer["name"]].edge_indices.size == wired.complexity().edges
        assert state[layer["name"]].live.shape == (layer["sources"],)
