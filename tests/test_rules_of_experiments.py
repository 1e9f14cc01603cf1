"""Every rule trains from one line of an experiment and resumes exactly."""

import json

import pytest

import runner
from genutil.checkpoint import read_checkpoint
from tests.conftest import ROOT
from tests.helpers.equality import same
from wirings.rules import RULES, find_rule, options_of

TRAINED = [name for name in RULES if name not in ("fine_tune", "td", "reg_td")]


@pytest.mark.parametrize("rule", TRAINED)
def test_a_rule_trains_and_resumes_exactly(write_app, tmp_path, rule):
    """In the static graph, which reads its weights in blocks."""
    own = {"graph_args": {"update_interval": 3}} if "update_interval" in options_of(rule) else {}
    app = write_app(graph=rule, num_epochs=3, checkpoint_interval=1, data_args={"num_images": 32}, **own)
    assert runner.main([f"app:{app}"]) == 0
    folder = tmp_path / "checkpoints"
    first = folder / "tiny" / "epoch_0.pt"
    assert runner.main([f"app:{app}", "--name", "again", "--resume", str(first)]) == 0
    whole, again = (read_checkpoint(folder / name / "last.pt") for name in ("tiny", "again"))
    for key in ("model", "optimizer", "iter"):
        assert same(again[key], whole[key]), key
    (results,) = (tmp_path / "runs").glob("tiny*/results.json")
    edges = json.loads(results.read_text())["edges"]
    if rule == "srigl":  # equally many of each live node, and less than one more for each would be too many
        of_nodes = whole["model"]["graph.mask"].flatten(1).sum(1)
        live = of_nodes[of_nodes > 0]
        assert edges == live.sum() and len(live.unique()) == 1
        assert edges <= 640 < edges + len(live)
    elif find_rule(rule).has_exact_count:
        assert edges == (6400 if rule == "complete" else 640)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"graph": "random", "density_schedule": "cubic"}, "rule random does not take a density schedule"),
        ({"density_schedule_args": {"end": 0.3}}, "name the schedule with density_schedule"),
        ({"density_schedule": "cubic", "density_schedule_args": {"end": 2.0}}, "got start 0.0, end 2.0"),
        ({"density_schedule": "cubic", "density_schedule_args": {"ende": 1}}, "did you mean end"),
        ({"density_schedule": "cubik"}, "must be 'constant', 'cubic', 'steps' or 'cyclic', got 'cubik'"),
        ({"graph": "rigl", "graph_args": {"drop_fraction": 2}}, "must be within 0..1, got drop_fraction 2"),
        ({"graph": "sr_ste", "graph_args": {"hidden_decay": -1}}, "hidden_decay must be at least 0"),
        ({"graph": "feather", "graph_args": {"power": 0.5}}, "power must be at least 1"),
    ],
)
def test_wrong_options(write_app, capsys, keys, message):
    assert runner.main([f"app:{write_app(**keys)}"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("rule", ["dnw", "st3"])
def test_a_training_with_a_schedule_starts_from_another_one(write_app, tmp_path, rule):
    app, folder = write_app(num_epochs=1), tmp_path / "checkpoints"
    assert runner.main([f"app:{app}"]) == 0
    scheduled = [f"app:{app}", "--graph", rule, "--density_schedule", "cubic"]
    for before, name in (("tiny", "second"), ("second", "third")):  # without and with a schedule
        trained = folder / before / "last.pt"
        assert runner.main([*scheduled, "--use_graph", str(trained), "--name", name]) == 0
        initial = read_checkpoint(folder / name / "init.pt")["model"]
        assert initial["graph.num_edges_now"] == 6400  # all edges, as at the start of any training
        assert same(initial["graph.weight"], read_checkpoint(trained)["model"]["graph.weight"])


@pytest.mark.parametrize("budget", ["erk", "global"])
def test_a_schedule_ends_at_the_budget(write_app, tmp_path, budget):
    app = write_app(graph="dnw", budget=budget, density_schedule="cubic", density_schedule_args={"end": 0.8})
    assert runner.main([f"app:{app}"]) == 0
    (results,) = (tmp_path / "runs").glob("tiny*/results.json")
    assert json.loads(results.read_text())["edges"] == 640


@pytest.mark.parametrize("rule", ["pwmpr", "chts", "srigl", "soft_topk"])
def test_rules_in_the_stages_of_a_mobilenet_graph(small_mobilenet, tmp_path, rule):
    """Their weights have no rows for the nodes that enter, and may have as many rows as columns."""
    own = ["--graph_args", "update_interval=1"] if "update_interval" in options_of(rule) else []
    app = f"app:{ROOT / 'apps/medium_scale/mobilenetv1_dnw_x225.yml'}"
    data = ["--data", "data.digits:Digits", "--in_channels", "1", "--image_size", "16", "--workers", "0"]
    length = ["--num_epochs", "1", "--max_batches", "4", "--batch_size", "16"]
    folders = ["--save_dir", str(tmp_path / "c"), "--log_dir", str(tmp_path / "r")]
    assert runner.main([app, "--graph", rule, *own, *data, *length, *folders]) == 0
    (path,) = (tmp_path / "r").glob("*/results.json")
    results = json.loads(path.read_text())
    assert results["edge_churn"] > 0 or rule in ("soft_topk", "srigl")
    assert 0 < results["effective_edges"] <= results["edges"]
