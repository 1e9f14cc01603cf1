"""Experiments with rules, budgets, callbacks and networks of other libraries, at the level of the command."""

import json
import logging
import re
import sys
import types

import pytest
import torch
from torch import nn

import runner
from genutil.checkpoint import read_checkpoint
from genutil.config import load_config
from genutil.runs.wiring_record import read_record
from models import build_model
from tests.conftest import ROOT
from tests.helpers.exported_files import needs_onnx
from tests.helpers.processes import run_together
from wirings.topk import num_kept
from wirings.wiring import Wiring

RESNET = {
    "model": "models.wired:torchvision_model", "model_args": {"name": "resnet18"}, "topk": [1],
    "image_size": 32, "dim": None, "downsample_dim": None, "feature_dim": None, "layers": None,
}  # fmt: skip
WIRED_NET = {**RESNET, "model": "tests.own_parts:WiredNet", "model_args": None}
OWN_RULE = {"graph": "tests.own_parts:DropAndGrow", "graph_args": {"fraction": 0.5}}


def run(path, *argv):
    return runner.main([f"app:{path}", "--gpus", *argv])


def states(folder, name="last.pt"):
    return read_checkpoint(folder / name)["model"]


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize(
    "network",
    [
        pytest.param({}, id="graph"),
        pytest.param(WIRED_NET, id="convolutions"),
        pytest.param(RESNET, id="resnet18", marks=pytest.mark.slow),
    ],
)
def test_a_rule_with_state_is_resumed_exactly(write_app, tmp_path, network, narrow_resnet18):
    whole = write_app(**OWN_RULE, **network)
    assert run(whole) == 0
    folder = tmp_path / "checkpoints" / "tiny"
    expected = states(folder)
    exchanged = [value for name, value in expected.items() if name.endswith("exchanged")]
    assert exchanged
    assert all(value > 0 for value in exchanged)
    masks = [value for name, value in expected.items() if name.endswith(".mask")]
    total = sum(mask.numel() for mask in masks)
    assert sum(int(mask.sum()) for mask in masks) == num_kept(total, 0.9)
    assert run(whole, "--name", "parts", "--num_epochs", "2", "--checkpoint_interval_steps", "2") == 0
    same(states(tmp_path / "checkpoints" / "parts"), expected)
    half = tmp_path / "checkpoints" / "tiny" / "epoch_0.pt"
    assert run(whole, "--name", "again", "--resume", str(half)) == 0
    same(states(tmp_path / "checkpoints" / "again"), expected)


def test_a_rule_sees_the_gradients_of_all_parts_of_a_batch(write_app, tmp_path):
    for name, options in {"whole": (), "parts": ("--accumulate", "2")}.items():
        path = write_app(f"{name}.yml", callbacks=["tests.own_parts:Notes"], batch_size=22, num_epochs=1,
                         data_args={"num_images": 22}, image_size=16)  # fmt: skip
        assert run(path, *options) == 0
    norms = [
        json.loads((folder / "notes.jsonl").read_text().splitlines()[0])["norm"]
        for folder in sorted((tmp_path / "runs").iterdir())
    ]
    assert len(norms) == 2
    # Batch norms take the statistics of each part, so that the gradients agree but for them.
    assert norms[0] == pytest.approx(norms[1], rel=0.5)


def test_callbacks_of_a_users_own(write_app, tmp_path, capsys):
    assert run(write_app(callbacks=["tests.own_parts:Notes"])) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    notes = [json.loads(line) for line in (folder / "notes.jsonl").read_text().splitlines()]
    steps = [note for note in notes if note["event"] == "step"]
    assert [(note["step"], note["total"]) for note in steps] == [(step, 6) for step in range(6)]
    assert all(note["norm"] > 0 for note in steps)
    assert [note["event"] for note in notes if note["event"] != "step"] == ["train", "val"] * 2
    assert {note.get("name") for note in notes} == {None, "tiny"}
    assert run(write_app(), "--callbacks", "tests.tiny_data:TinyData") == 2
    message = "callbacks: tests.tiny_data:TinyData must be a subclass of trainers.callbacks.Callback"
    assert message in capsys.readouterr().err
    assert run(write_app(), "--callbacks", "tests.own_parts:Nothing") == 2
    assert "callbacks: module tests.own_parts has no Nothing" in capsys.readouterr().err
    assert run(write_app(), "--callbacks", "tests.own_parts:Failing") == 2
    error = capsys.readouterr().err
    assert "callbacks: 0: tests.own_parts:Failing raised LookupError: no table" in error


def test_a_wrong_callback_leaves_no_folder(write_app, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    app = write_app(callbacks=["tests.own_parts:Unbuildable"])
    assert run(app) == 2
    error = capsys.readouterr().err
    assert "callbacks: tests.own_parts:Unbuildable raised LookupError: no table" in error
    assert {path.name for path in tmp_path.iterdir()} - {path.name for path in before} <= {app.name}
    # Files of an earlier run stay where they are.
    assert run(write_app()) == 0
    before = sorted(tmp_path.rglob("*"))
    assert run(write_app(callbacks=["tests.own_parts:Unbuildable"])) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_keys_that_a_callback_takes_have_an_effect(write_app, caplog):
    options = ["--exp_decaying_lr_gamma", "0.9"]
    assert run(write_app(num_epochs=1), *options) == 0
    assert "no effect in this experiment: exp_decaying_lr_gamma" in caplog.text
    caplog.clear()
    assert run(write_app(num_epochs=1, callbacks=["tests.own_parts:TakesGamma"]), *options) == 0
    assert "no effect" not in caplog.text


def wiring(app, **keys):
    return Wiring(build_model(load_config(app, keys)))


def test_budgets_of_the_published_networks(write_app):
    app = ROOT / "apps" / "medium_scale" / "mobilenetv1_dnw_x225.yml"
    published = wiring(app).summary().layers
    for budget in ("uniform", "erk", "global"):
        summary = wiring(app, budget=budget, prune_rate=0.97).summary()
        assert summary.total.in_use == num_kept(summary.total.potential, 0.97)
        assert [layer.potential for layer in summary.layers] == [layer.potential for layer in published]
    for keys in ({}, {"small": True}, {"prune_rate": 0.51}):
        counts = [layer.in_use for layer in wiring(app, **keys).summary().layers]
        by_width = wiring(app, budget="mobilenet_width", **keys).summary().layers
        assert [layer.in_use for layer in by_width] == counts
    densities = wiring(app, budget={"layers.0.*": 0.5, "*": 0.01}).summary().layers
    assert [round(layer.density, 3) for layer in densities] == [0.5, *[0.01] * (len(densities) - 1)]
    by_function = wiring(app, budget="tests.own_parts:halves").summary().layers
    assert [layer.density for layer in by_function] == [1.0, *[0.0] * (len(by_function) - 1)]


@pytest.mark.parametrize("graph", ["dnw", "random", "td"])
def test_a_budget_changes_no_other_random_number(write_app, graph):
    keys = {"graph": graph, **({"rho": 0.5} if graph == "td" else {})}
    torch.manual_seed(3)
    plain = build_model(load_config(write_app(), keys)).state_dict()
    torch.manual_seed(3)
    budgeted = build_model(load_config(write_app(), {**keys, "budget": "uniform"})).state_dict()
    same({name: value for name, value in plain.items()}, budgeted)  # one layer: the same number of edges


WRONG = [
    (
        ["--budget", "urk"],
        "must be uniform | erk | mobilenet_width | global | PATTERN=DENSITY ... | mod",
    ),
    (["--budget", "nowhere:budget"], "budget: there is no module nowhere"),
    (["--budget", "tests.own_parts:too_many"], "budget: the budget has 1000000000 edges for graph.weight"),
    (["--budget", "layers.*=0.5"], "budget: no density for graph.weight: none of layers.* matches"),
    (["--budget", "graph*=1.5"], "budget: must be less than or equal to 1, got"),
    (["--budget", "global", "--graph", "random"], "and random does not; choose"),
    (["--graph", "dnv"], "did you mean dnw"),
]


@pytest.mark.parametrize(("argv", "message"), WRONG)
def test_wrong_budgets(write_app, capsys, argv, message):
    assert run(write_app(), *argv) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("network", [{}, RESNET])
@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"num_edges": 7}, "graph_args: num_edges is set by the experiment's other keys; remove it"),
        ({"include": "conv1"}, "graph_args: DropAndGrow takes no argument include"),
        ({"fracton": 7}, "graph_args: DropAndGrow takes no argument fracton; did you mean fraction?"),
    ],
)
def test_options_that_a_rule_does_not_have(write_app, capsys, narrow_resnet18, network, args, message):
    assert run(write_app(**network, **OWN_RULE | {"graph_args": args})) == 2
    assert message in capsys.readouterr().err


def test_options_of_a_rule_have_an_effect(write_app, caplog):
    """In a network that makes its rules itself as well."""
    assert run(write_app(**OWN_RULE, num_epochs=1)) == 0
    assert "no effect" not in caplog.text


def test_densities_on_the_command_line(write_app):
    path = write_app()
    assert run(path, "--num_epochs", "1", "--budget", "graph.weight=0.25") == 0


@pytest.mark.parametrize(
    ("keys", "options"),
    [
        pytest.param({}, (), id="dnw"),
        pytest.param({"graph": "random", "budget": "erk"}, (), id="random erk"),
        pytest.param({"budget": "global"}, ("--compile",), id="global compiled", marks=pytest.mark.slow),
    ],
)
def test_torchvision_networks(write_app, tmp_path, keys, options):
    path = write_app(**{**RESNET, **keys}, num_epochs=1, data_args={"num_images": 8})
    assert run(path, *options) == 0
    weights = states(tmp_path / "checkpoints" / "tiny")
    assert "layer1.0.conv1.weight" in weights
    (results,) = (tmp_path / "runs").glob("*/results.json")
    total = sum(
        weight.numel()
        for name, weight in weights.items()
        if name.endswith("weight") and weight.dim() > 1 and ".wiring." not in name
    )
    counted = json.loads(results.read_text())
    assert counted["params"] < 0.15 * total


@pytest.mark.parametrize("keys", [{"budget": "global"}, OWN_RULE], ids=["dnw", "own rule"])
def test_several_processes_have_one_wiring(write_app, tmp_path, keys):
    """Each checkpoint compares weights, masks and wirings of the processes to the bit."""
    path = write_app(**{**WIRED_NET, **keys}, prune_rate=0.8, num_epochs=2, data_args={"num_images": 20})
    first, second = run_together(2, [f"app:{path}"], tmp_path)
    assert (first.status, second.status) == (0, 0), first.err
    weights = states(tmp_path / "checkpoints" / "tiny")
    assert ("conv.wiring.mask" in weights) == ("graph" in keys)
    if "graph" in keys:
        assert weights["conv.wiring.exchanged"] > 0
        total = weights["conv.wiring.mask"].sum() + weights["fc.wiring.mask"].sum()
        assert total == num_kept(8 * 16 * 9 + 16 * 10, 0.8)


def test_a_wired_network_is_recorded(write_app, tmp_path, narrow_resnet18):
    path = write_app(**RESNET, num_epochs=1, data_args={"num_images": 8}, record_wiring=True)
    assert run(path) == 0
    (file,) = (tmp_path / "runs").glob("*/wiring")
    record = read_record(file)
    assert [layer["name"] for layer in record.layout][:2] == ["conv1", "layer1.0.conv1"]
    first, last = record.states[0].layers["conv1"], record.states[-1].layers["conv1"]
    assert len(first.edge_indices) > 0
    assert first.live.shape == last.live.shape == (3,)


@needs_onnx
def test_fast_evaluation_of_torchvision_networks(write_app, tmp_path, caplog, narrow_resnet18):
    """The same accuracy, with fewer channels; and a file for other programs."""
    path = write_app(**RESNET, prune_rate=0.999, num_epochs=1, data_args={"num_images": 16})
    assert run(path) == 0
    resumed = ("--resume", str(tmp_path / "checkpoints" / "tiny" / "last.pt"))
    caplog.set_level(logging.INFO)
    results_of = {}
    for name, options in {"plain": (), "fast": ("--fast_eval",)}.items():
        assert run(path, "--name", name, *resumed, "--evaluate", *options) == 0
        (results,) = (tmp_path / "runs").glob(f"{name}*/results.json")
        results_of[name] = json.loads(results.read_text())
    assert results_of["fast"]["top1_accuracy"] == results_of["plain"]["top1_accuracy"]
    assert results_of["fast"]["CELoss"] == pytest.approx(results_of["plain"]["CELoss"], rel=1e-4)
    assert (results_of["plain"]["engine"], results_of["fast"]["engine"]) == ("plain", "dense")
    before, after = re.search(r"Parameters: ([\d,]+) before, ([\d,]+) after", caplog.text).groups()
    assert int(after.replace(",", "")) < 0.9 * int(before.replace(",", ""))
    assert run(path, *resumed, "--export", str(tmp_path / "out.onnx")) == 0
    assert f"{after} of {before} parameters, logits in onnxruntime" in caplog.text


def test_first_convolution_of_other_channels():
    config = load_config(
        ROOT / "apps" / "quickstart" / "digits_dnw.yml",
        {"model": "models.wired:torchvision_model", "model_args": {"name": "mobilenet_v3_small"}},
    )
    model = build_model(config)
    shape = (2, config.in_channels, config.image_size, config.image_size)
    assert model.eval()(torch.zeros(shape)).shape == (2, config.output_size)


def test_mistakes_of_torchvision_networks(write_app, capsys, narrow_resnet18):
    for arguments, message in (
        ({"name": "resnet19"}, "torchvision has no classifier resnet19; did you mean resnet1"),
        ({"name": "resnet18", "exclude": ["fcc"]}, "wire: exclude: fcc matches no module of the network"),
        ({"name": "resnet18", "depth": 3}, "takes no argument depth"),
    ):
        assert run(write_app(**{**RESNET, "model_args": arguments})) == 2
        assert message in capsys.readouterr().err
    assert run(write_app(**{**RESNET, "graph": "td"})) == 2
    assert "rho" in capsys.readouterr().err


def test_timm_networks(write_app, capsys, monkeypatch):
    keys = {**RESNET, "model": "models.wired:timm_model", "model_args": {"name": "tiny"}}
    monkeypatch.setitem(sys.modules, "timm", None)
    assert run(write_app(**keys)) == 2
    assert "models.wired:timm_model needs timm; run pip install timm" in capsys.readouterr().err

    def create(name, num_classes, in_chans):
        return nn.Sequential(
            nn.Conv2d(in_chans, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)
        )

    fake = types.SimpleNamespace(is_model="tiny".__eq__, list_models=lambda: ["tiny"], create_model=create)
    monkeypatch.setitem(sys.modules, "timm", fake)
    assert run(write_app(**keys), "--num_epochs", "1") == 0
    assert run(write_app(**{**keys, "model_args": {"name": "tini"}})) == 2
    assert "timm has no network tini; did you mean tiny?" in capsys.readouterr().err
