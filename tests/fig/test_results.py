"""`make results`: which runs its page shows, and where it is written."""

import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from fig import result_runs, results
from fig.result_runs import Experiment
from fig.results_page import Measured, heading, page
from fig.train_app import ROOT
from tests.fig.recorded import leave_run
from tests.helpers.in_process import run_here

PAGE = ROOT / "docs" / "results.md"


@pytest.fixture
def tiny(write_app, monkeypatch):
    """One experiment of a few steps, of one epoch."""
    app = write_app(num_epochs=1)
    monkeypatch.setattr(results, "experiments", lambda: [Experiment("tiny", str(app), ())])


@pytest.fixture
def in_this_process(monkeypatch, seeds_in_this_process):
    monkeypatch.setattr(result_runs, "subprocess", SimpleNamespace(run=run_here))


def make(tmp_path, *argv):
    return results.main(["--folder", str(tmp_path / "r"), "--output", str(tmp_path / "page.md"), *argv])


def left(tmp_path):
    return [json.loads(path.read_text()) for path in (tmp_path / "r").glob("runs/*/results.json")]


def table_row(text):
    line, _ = [line for line in text.splitlines() if line.startswith("| tiny")]  # the other is of costs
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_tells_of_its_own_command_alone(tiny, in_this_process, tmp_path):
    """Not of runs of other settings or seeds in the same folder."""
    before = PAGE.read_text()
    assert make(tmp_path, "--seeds", "4", "--lr", "0.01") == 0
    assert make(tmp_path, "--seeds", "5", "--num_epochs", "2") == 0
    assert make(tmp_path, "--seeds", "5") == 0
    text = (tmp_path / "page.md").read_text()
    (own,) = [
        one
        for one in left(tmp_path)
        if (one["seed"], one["config"]["num_epochs"], one["config"]["lr"]) == (5, 1, 0.1)
    ]
    assert table_row(text)[:4] == ["tiny", f"{own['top1_accuracy']:.2f}", "1", "1"]
    assert "over the seeds 5. Trainings" in text
    assert "## tests.tiny_data:TinyData, 1 epochs" in text
    (line,) = [line for line in text.splitlines() if line.startswith("python runner.py")]
    assert line.endswith("--name tiny --save_dir results/checkpoints --log_dir results/runs --seeds 5")
    assert "Written by `python -m fig.results --folder" in text
    assert PAGE.read_text() == before


def test_finished_runs_are_not_repeated_and_damaged_ones_are(tiny, in_this_process, tmp_path, capfd):
    assert make(tmp_path, "--seeds", "4") == 0
    assert make(tmp_path, "--seeds", "4") == 0
    (file,) = (tmp_path / "r").glob("runs/*/results.json")
    file.write_text("{")
    assert make(tmp_path, "--seeds", "4") == 0  # from the checkpoint of its end
    assert len(list((tmp_path / "r" / "runs").iterdir())) == 1
    assert left(tmp_path)[0]["epochs"] == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--only", "nothing"], "--only: no experiment has nothing in its name"),
        (["--lr", "-1"], "lr: must be greater than 0"),
        (["--print_config"], "holds no finished run of this command"),
        (["--topk", "2"], "has no top-1 accuracy (topk: [2])"),
    ],
)
def test_mistakes(tiny, in_this_process, tmp_path, capfd, argv, message):
    assert make(tmp_path, "--seeds", "4", *argv) == 2
    assert message in capfd.readouterr().err


def test_a_page_that_cannot_be_written(tiny, in_this_process, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    assert make(tmp_path, "--seeds", "4", "--output", str(tmp_path / "file" / "page.md")) == 2
    assert "page.md: cannot be written" in capfd.readouterr().err


def test_a_part_does_not_take_the_place_of_the_whole_page(tiny, tmp_path):
    before = PAGE.read_text()
    assert results.main(["--folder", str(tmp_path / "r"), "--seeds", "4", "--only", "tin"]) == 0
    assert (tmp_path / "r" / "results.md").is_file()
    assert PAGE.read_text() == before


def test_commands_of_the_page_are_those_of_the_experiments():
    shown = [line for line in PAGE.read_text().splitlines() if line.startswith("python runner.py")]
    made = [experiment.command(Path("results"), (0, 1, 2), ()) for experiment in results.experiments()]
    assert [shlex.split(line)[1:] for line in shown] == made


def one(tmp_path, name, **changes):
    folder = leave_run(tmp_path, name, 0, [1.0] * 3, **changes)
    result = json.loads((folder / "results.json").read_text())
    return Measured(name, f"python {name}", [result], heading(result))


def test_headings_and_times_are_those_of_the_runs(tmp_path):
    digits = {"data": "data.digits:Digits"}
    fashion = {"data": "data.fashion_mnist:FashionMNIST", "data_args": {"num_images": "20000"}}
    text = page(
        [one(tmp_path, "a", **digits), one(tmp_path, "b", **digits), one(tmp_path, "c", **fashion)], "make x"
    )
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "## Handwritten digits: 1,437 images to train on, 360 to test, 3 epochs",
        "## Fashion-MNIST: the first 20,000 images to train on, 10,000 to test, 3 epochs",
    ]
    assert "training time: 4 minutes in all" in text  # three times 90 seconds
    assert "Fine tuning" not in text
    tuned = page([one(tmp_path, "d", use_graph="c.pt", **digits)], "make x")
    assert "Fine tuning and\nthe lottery ticket begin" in tuned
    whole = {"data": fashion["data"], "data_args": {}}
    assert heading({"config": whole, "epochs": 2}).startswith("Fashion-MNIST: 60,000 images to train on")
    old = PAGE.read_text().splitlines()
    assert [line.rpartition(",")[0] for line in headings] == [
        line.rpartition(",")[0] for line in old if line.startswith("## ")
    ]
