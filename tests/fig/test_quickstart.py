"""The program of `make quickstart`, at reduced length."""

import re
import subprocess
from types import SimpleNamespace

import pytest

from fig import quickstart, train_app
from tests.helpers.in_process import run_here


@pytest.mark.parametrize("here", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_both_wirings_are_trained_and_told_as_measured(tmp_path, capfd, monkeypatch, here):
    """In this process, or as a user's command in others."""
    if here:
        stand_in = SimpleNamespace(run=run_here, PIPE=subprocess.PIPE)
        monkeypatch.setattr(train_app, "subprocess", stand_in)
    options = ["--num_epochs", "2", "--dim", "120", "--downsample_dim", "16", "--feature_dim", "20"]
    options += ["--save_dir", str(tmp_path / "c"), "--log_dir", str(tmp_path / "r")]
    assert quickstart.main(options) == 0
    printed = capfd.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    assert [line.count("|") for line in lines] == [6] * 4
    assert "random graph, fixed" in lines[2]
    assert "DNW, discovered" in lines[3]
    assert all(re.search(r"\b720\b", line) for line in lines[2:])
    accuracies = [float(re.search(r"([\d.]+) %", line)[1]) for line in lines[2:]]
    assert all(20 < accuracy <= 100 for accuracy in accuracies)
    for folder in re.findall(r"^  (/.*)$", printed, re.MULTILINE):
        assert (tmp_path / "r") in type(tmp_path)(folder).parents


def test_a_failing_run_ends_the_quickstart(capfd):
    assert quickstart.main(["--lr", "-1"]) == 2
    assert "lr: must be greater than 0" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("results", "lacking"),
    [
        ({"top2_accuracy": 1.0, "edges": 2, "params": 3}, "top1_accuracy"),
        ({"top1_accuracy": 1.0}, "edges, params"),
    ],
)
def test_runs_that_lack_a_number(monkeypatch, capsys, results, lacking):
    """As with --topk 2."""
    monkeypatch.setattr(quickstart, "train_app", lambda app, options: (0, {"wall_time": 1.0, **results}))
    assert quickstart.main([]) == 2
    assert f"the results of the runs lack {lacking}; remove" in capsys.readouterr().err
