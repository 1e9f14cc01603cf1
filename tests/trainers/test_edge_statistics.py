"""Churn, explored edges and training MACs in metrics and results, also of a training that was resumed."""

import json

import pytest

import runner
from genutil.checkpoint import read_checkpoint, save_checkpoint
from genutil.config import load_config
from models import build_model

KEYS = ("edge_churn", "edges_explored", "training_macs", "training_macs_per_image")


def results_of(folder, name):
    (path,) = (folder / "runs").glob(f"{name}*/results.json")
    metrics = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
    return json.loads(path.read_text()), [line for line in metrics if line["phase"] == "train"]


@pytest.mark.parametrize("rule", ["dnw", "gmp"])
def test_statistics_of_a_resumed_training_are_those_of_the_whole(write_app, tmp_path, rule):
    app = write_app(graph=rule, num_epochs=3, checkpoint_interval=1, data_args={"num_images": 32})
    assert runner.main([f"app:{app}"]) == 0
    first = tmp_path / "checkpoints" / "tiny" / "epoch_0.pt"
    assert runner.main([f"app:{app}", "--name", "again", "--resume", str(first)]) == 0
    whole, metrics = results_of(tmp_path, "tiny")
    again, metrics_again = results_of(tmp_path, "again")
    assert {key: again[key] for key in KEYS} == {key: whole[key] for key in KEYS}
    for line, resumed in zip(metrics[1:], metrics_again, strict=True):
        assert [line[key] for key in KEYS[:2]] == [resumed[key] for key in KEYS[:2]]
    assert [whole[key] for key in KEYS[:2]] == [metrics[-1][key] for key in KEYS[:2]]
    macs = whole["training_macs_per_image"]
    assert whole["training_macs"] == pytest.approx(32 * 3 * sum(macs.values()), rel=1e-3)
    potential = build_model(load_config(app)).graph.potential.num_readable
    of_edge = whole["layers"][1]["macs_per_edge"]
    dense = whole["macs"] - of_edge * whole["edges"]
    complete = dense + of_edge * potential
    if rule == "dnw":
        assert macs["forward"] < whole["macs"]  # some edges in use are not read
        assert macs["weights"] == complete
        assert whole["edges_explored"] >= 10
    else:
        assert dense + of_edge * 640 * potential / 6400 < macs["forward"] == macs["weights"] < complete
        assert whole["edges_explored"] == 100


def test_a_history_that_is_missing_or_wrong_is_not_reported(write_app, tmp_path, caplog):
    app = write_app(graph="dnw", num_epochs=2, checkpoint_interval=1)
    assert runner.main([f"app:{app}"]) == 0
    first = tmp_path / "checkpoints" / "tiny" / "epoch_0.pt"
    content = read_checkpoint(first)
    (path,) = content["callbacks"]
    for name, state in (("without", None), ("wrong", {path: {"history": {"updates": 1}}})):
        content["callbacks"] = state
        save_checkpoint(first, content)
        assert runner.main([f"app:{app}", "--name", name, "--resume", str(first)]) == 0
        results, metrics = results_of(tmp_path, name)
        assert "training_macs" not in results and "edges_explored" not in results
        assert "edge_churn" in metrics[0]
    assert "the history of edges in the checkpoint is not continued (it lacks" in caplog.text
