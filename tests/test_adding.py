"""docs/adding.md: every file in it works, and does what the page says."""

import importlib
import json
import math
import re
import shlex
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

import runner
import wirings
from genutil.config import load_config
from models import build_model
from tests.conftest import ROOT
from tests.helpers.documentation import RUNNER, blocks, example_files
from wirings.compacting import compact, engines_of
from wirings.native.build import compiler
from wirings.rules.base import Step
from wirings.rules.dnw import TopEdges
from wirings.wiring import Wiring

OWN_COMMANDS = [command for command in RUNNER if "app:my_" in command]


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The folder with the files of the page, which can be imported from it."""
    for name, text in example_files().items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in example_files():
        sys.modules.pop(name.removesuffix(".py"), None)


def accuracy(output):
    return float(re.search(r"top1_accuracy\s+([\d.]+)", output)[1])


def test_the_experiment_of_the_page_trains(page):
    """As a command in a folder of a user's own."""
    argv = shlex.split("runner.py app:my_experiment.yml")
    assert f"python {shlex.join(argv)}" in OWN_COMMANDS
    done = subprocess.run(
        [sys.executable, str(ROOT / argv[0]), *argv[1:]],
        cwd=page, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "no effect" not in done.stderr
    assert re.search(r"^  edges +144$", done.stdout, re.MULTILINE)  # a quarter of 24 × 24
    assert accuracy(done.stdout) > 90


def test_other_commands_of_the_page(page, capsys, caplog, narrow_resnet18):
    others = [command for command in OWN_COMMANDS if command != "python runner.py app:my_experiment.yml"]
    assert len(others) == 3
    for command in others:
        assert runner.main(shlex.split(command)[2:]) == 0, (command, capsys.readouterr().err)
        assert accuracy(capsys.readouterr().out) > 90, command
    assert "no effect" not in caplog.text
    (log,) = page.glob("runs/my_resnet*/log.jsonl")
    head, *lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert head["project"] == "wirings"
    assert head["name"] == head["config"]["name"] == "my_resnet"
    assert [line["step"] for line in lines] == [6, 6, 12, 12, 18, 18]
    assert all(("train/CELoss" in line) != ("val/CELoss" in line) for line in lines)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_the_logger_writes_to_an_installed_package(page, write_app, name):
    if name == "trackio":
        (page / "wandb").mkdir()  # a folder of runs, no package
    calls = "calls = []\n"
    for function in ("init", "log", "finish"):
        calls += f"def {function}(*args, **options): calls.append(({function!r}, args, options))\n"
    (page / f"{name}.py").write_text(calls)
    importlib.invalidate_caches()
    try:
        assert runner.main([f"app:{write_app(callbacks=['my_logger:Logger'])}", "--gpus"]) == 0
        made = sys.modules[name].calls
    finally:
        sys.modules.pop(name, None)
    assert [call[0] for call in made] == ["init", *["log"] * 4, "finish"]
    assert made[0][2]["config"]["model"] == "models.graphs.neuralgraph:StaticNeuralGraph"
    assert made[2][1][0]["val/top1_accuracy"] >= 0
    assert [call[2]["step"] for call in made[1:-1]] == [3, 3, 6, 6]


def rigl(weight, mask, gradient, count):
    """One replacement by the published definition, entry by entry."""
    used = sorted(np.flatnonzero(mask), key=lambda entry: abs(weight[entry]))
    kept = set(used[count:])
    others = [entry for entry in range(len(weight)) if entry not in kept]
    grown = sorted(others, key=lambda entry: -abs(gradient[entry]))[:count]
    new_mask = np.isin(np.arange(len(weight)), [*kept, *grown])
    return np.where(new_mask & ~mask, 0, weight), new_mask


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 3, 3)])
def test_drop_and_grow_is_the_published_rule(page, shape):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6) if len(shape) == 2 else nn.Conv2d(3, 4, 3))
    inputs = torch.randn(4, 5) if len(shape) == 2 else torch.randn(2, 3, 8, 8)
    rule = importlib.import_module("my_rules").DropAndGrow
    wiring = wirings.wire(model, rule, density=0.4, interval=3, fraction=0.5)
    (own,) = wiring.rules.values()
    count = own.num_edges
    assert int(own.mask.sum()) == count == math.ceil(0.4 * math.prod(shape))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=1e-2)
    replaced = []
    for step in range(20):
        optimizer.zero_grad()
        F.softplus(model(inputs)).square().mean().backward()
        weight, gradient, mask = (
            tensor.detach().flatten().numpy().copy() for tensor in (own.weight, own.weight.grad, own.mask)
        )
        assert (gradient[~mask] != 0).all()
        wiring.after_backward(optimizer, step, 20)
        optimizer.step()
        now, mask_now = (tensor.detach().flatten().numpy() for tensor in (own.weight, own.mask))
        if step % 3 == 0 and 0 < step < 15:
            dropped = int(0.25 * (1 + math.cos(math.pi * step / 15)) * count)
            expected, expected_mask = rigl(weight, mask, gradient, dropped)
            assert np.array_equal(mask_now, expected_mask)
            assert np.array_equal(now, expected)  # no step of the optimizer
            new = mask_now & ~mask
            momenta = optimizer.state[own.weight]["momentum_buffer"].flatten()
            assert (momenta[torch.from_numpy(new)] == 0).all()
            replaced.append(int(new.sum()))
        else:
            assert np.array_equal(mask_now, mask)
            assert (now[mask] != weight[mask]).all()
            assert own.weight.grad.flatten()[~torch.from_numpy(mask)].eq(0).all()
        assert int(own.mask.sum()) == count
        assert torch.equal(own.selection().mask(), own.mask)
    assert len(replaced) == 4
    assert sum(replaced) > 0


def test_an_edge_that_is_dropped_and_grown_at_once_keeps_its_weight(page):
    rule_class = importlib.import_module("my_rules").DropAndGrow
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    (rule,) = wirings.wire(model, rule_class, density=0.5).rules.values()
    rule.mask.copy_(torch.tensor([[True, True, False, False]]))
    with torch.no_grad():
        rule.weight.copy_(torch.tensor([[0.1, 2.0, 3.0, 4.0]]))
    rule.weight.grad = torch.tensor([[5.0, 1.0, 6.0, 2.0]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer.state[rule.weight]["momentum_buffer"] = torch.ones(1, 4)
    rule.replace(2, Step(100, 1000, optimizer))
    assert rule.mask.tolist() == [[True, False, True, False]]
    assert rule.weight.tolist() == [[pytest.approx(0.1), 2.0, 0.0, 4.0]]
    assert optimizer.state[rule.weight]["momentum_buffer"].tolist() == [[1.0, 1.0, 0.0, 1.0]]


def test_edges_of_weight_zero_stay_in_use(page):
    """Of all-zero weights and gradients, as behind units that are off."""
    rule_class = importlib.import_module("my_rules").DropAndGrow
    model = nn.Sequential(nn.Linear(40, 10))
    (rule,) = wirings.wire(model, rule_class, density=0.1).rules.values()
    nn.init.zeros_(rule.weight)
    rule.weight.grad = torch.zeros(10, 40)
    rule.after_backward(Step(100, 1000, torch.optim.SGD(model.parameters(), lr=0.1)))
    assert int(rule.mask.sum()) == rule.num_edges == 40


def test_drop_and_grow_is_resumed_exactly(page, write_app):
    whole = write_app(graph="my_rules:DropAndGrow", graph_args={"interval": 2}, budget="erk")

    def trained(*options):
        assert runner.main([f"app:{whole}", "--gpus", *options]) == 0
        name = options[1] if options else "tiny"
        return torch.load(page / "checkpoints" / name / "last.pt", weights_only=True)["model"]

    expected = trained()
    assert any(name.endswith(".mask") for name in expected)
    resumed = trained("--name", "again", "--resume", str(page / "checkpoints" / "tiny" / "epoch_0.pt"))
    assert all(torch.equal(resumed[name], value) for name, value in expected.items())


def test_wiring_by_the_rule_of_the_page(page):
    (block,) = [block for block in blocks("python") if "my_rules.DropAndGrow" in block]
    torch.manual_seed(0)
    names = {"model": nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))}
    exec(block, names)
    total = names["wiring"].summary().total
    assert total.in_use == math.ceil(0.1 * total.potential)
    assert all(rule.fraction == 0.3 for rule in names["wiring"].rules.values())


def table(header):
    """The first cells of a table of the page."""
    lines = (ROOT / "docs" / "adding.md").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {header} |"))
    cells = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells.append(line.split(" | ")[0].removeprefix("| "))
    return cells


def test_budgets_of_the_page(page, narrow_resnet18):
    summaries = {}
    for cell in table("`budget:`"):
        budget = yaml.safe_load(cell.strip("`"))
        keys = {
            "budget": budget,
            "graph": "dnw",
            "graph_args": {},
            "model_args": {"name": "resnet18"},
            "image_size": 32,
        }
        summaries[str(budget)] = Wiring(build_model(load_config("my_resnet.yml", keys))).summary()
    assert len(summaries) == 5
    for name in ("uniform", "erk", "global"):
        total = summaries[name].total
        assert total.in_use == total.potential - int(0.9 * total.potential)
    by_pattern = {layer.name: layer.density for layer in next(
        summary for name, summary in summaries.items() if name.startswith("{")
    ).layers}  # fmt: skip
    assert by_pattern["conv1.weight"] == 1
    assert by_pattern["layer4.1.conv1.weight"] == pytest.approx(0.02, abs=1e-3)
    assert by_pattern["layer1.1.conv1.weight"] == pytest.approx(0.1, abs=1e-3)
    densities = [layer.density for layer in summaries["my_budgets:first_layer_dense"].layers]
    assert densities[0] == 1
    assert densities[1:] == pytest.approx([0.1] * len(densities[1:]), abs=1e-3)


def test_attributes_of_a_rule_that_the_page_lists(page):
    model = nn.Sequential(nn.Linear(4, 3))
    (rule,) = wirings.wire(model, importlib.import_module("my_edges").StrongestPerNode, 0.5).rules.values()
    for name in table("attribute or method"):
        for attribute in re.findall(r"`(?:self\.)?(\w+)", name):
            assert hasattr(rule, attribute), attribute
    assert rule.in_use().sum(1).tolist() == [2, 2, 2]


def test_a_network_of_the_page_has_a_compact_form(page):
    """And the native engine runs it, where there is a compiler."""
    torch.manual_seed(0)
    model = importlib.import_module("my_stages").OneStage(
        3, 5, 16, lambda potential: TopEdges(potential, 300)
    )
    (checking,) = [block for block in blocks("python") if "def same_logits" in block]
    names = {}
    exec(checking, names)
    images = torch.randn(4, 3, 16, 16)
    model(images)
    names["same_logits"](model, images)
    assert (engines_of(compact(model)) == "native") == (compiler() is not None)


def test_networks_with_the_former_names_are_built(page):
    """A constructor with the argument `edges`, and EdgeSpace."""
    text = (page / "my_model.py").read_text()
    for name, former in (("make_rule", "edges"), ("PotentialEdges", "EdgeSpace")):
        assert name in text
        text = text.replace(name, former)
    (page / "my_former_model.py").write_text(text)
    config = {"model": "my_former_model:TwoLayers", "graph": "dnw"}
    (layer,) = Wiring(build_model(load_config("my_experiment.yml", config))).summary().layers
    assert (layer.rule, layer.in_use) == ("dnw", 144)
    sys.modules.pop("my_former_model")


def test_what_a_network_reports_is_all_that_the_page_lists():
    listed = set()
    for cell in table("name"):
        listed |= set(re.findall(r"`(\w+)", cell))
    own = {name for name in vars(wirings.WiredNetwork) if not name.startswith("_")}
    assert listed == own
    assert isinstance(vars(wirings.WiredNetwork)["structure"], types.FunctionType)


def test_anchors_of_the_page_exist():
    text = (ROOT / "docs" / "adding.md").read_text()
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("##")
    }
    anchors = set(re.findall(r"\]\(#([\w-]+)\)", text))
    assert anchors
    assert anchors <= headings
