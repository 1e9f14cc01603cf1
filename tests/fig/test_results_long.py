"""`make results-long`: order of the runs, and a page of those that are finished."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from fig import result_runs, results_long
from fig.result_runs import Experiment
from fig.results_long import Part
from genutil.config.command_line import parse_command_line
from tests.conftest import ROOT
from tests.fig.drawn_files import written
from tests.helpers.in_process import run_here
from wirings.rules import RULES


@pytest.fixture
def two_parts(write_app, monkeypatch, seeds_in_this_process):
    app = str(write_app(num_epochs=1))
    parts = {
        "a": Part("First part", (0, 1), (Experiment("one", app), Experiment("two", app, ("--lr", "0.2")))),
        "b": Part("Second part", (0,), (Experiment("three", app, ("--graph", "random")),)),
    }
    monkeypatch.setattr(results_long, "parts", lambda: parts)
    monkeypatch.setattr(result_runs, "subprocess", SimpleNamespace(run=run_here))


def make(tmp_path, *argv):
    output = tmp_path / "page.md"
    status = results_long.main(["--folder", str(tmp_path / "r"), "--output", str(output), *argv])
    return status, output.read_text() if output.is_file() else ""


def runs_in_order(tmp_path):
    results = [json.loads(path.read_text()) for path in (tmp_path / "r").glob("runs/*/results.json")]
    return [one["name"] for one in sorted(results, key=lambda one: Path(one["folder"]).stat().st_ctime)]


def test_the_first_seed_of_all_comes_before_the_second(two_parts, tmp_path, capfd):
    status, text = make(tmp_path)
    assert status == 0
    names = ["one-seed0", "two-seed0", "three-seed0", "one-seed1", "two-seed1"]
    assert runs_in_order(tmp_path) == names
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## First part", "## Second part"
    ]  # fmt: skip
    assert "over the seeds 0, 1. Rules have" in text
    assert "Not measured yet" not in text
    for name in ("a", "b"):
        assert f"![accuracy by cost](page_{name}.png)" in text
    assert "--name one" in text and "--seeds 0 1" in text
    written(tmp_path, "page_a", "page_b")
    assert make(tmp_path)[0] == 0
    assert runs_in_order(tmp_path) == names  # nothing is repeated


def test_a_page_of_the_runs_that_are_finished(two_parts, tmp_path, capfd):
    assert make(tmp_path, "--seeds", "0", "--only", "two")[0] == 0
    status, text = make(tmp_path, "--page_only")
    assert status == 0
    assert runs_in_order(tmp_path) == ["two-seed0"]
    assert "one (seed 0), one (seed 1), two (seed 1), three (seed 0)." in text
    assert "## Second part" not in text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--only", "nothing"], "--only: no experiment has nothing in its name"),
        (["--page_only"], "holds no finished run of these experiments"),
        (["--page_only", "--lr", "-1"], "lr: must be greater than 0"),
        (["--parts", "z"], "invalid choice: 'z'"),
    ],
)
def test_mistakes(two_parts, tmp_path, capfd, argv, message):
    try:
        assert make(tmp_path, *argv)[0] == 2
    except SystemExit as end:
        assert end.code == 2
    assert message in capfd.readouterr().err


def test_experiments_are_accepted_and_hold_every_rule():
    parts = results_long.parts()
    assert list(parts) == ["digits", "a", "b", "c", "d"]
    names = [experiment.name for part in parts.values() for experiment in part.experiments]
    assert len(names) == len(set(names))
    rules = set()
    for part in parts.values():
        for experiment in part.experiments:
            argv = [f"app:{ROOT / experiment.app}", *experiment.options, "--seed", "0"]
            config = parse_command_line(argv).config
            rules.add(config.graph)
    assert rules == set(RULES)
