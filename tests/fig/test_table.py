"""Tables of results: exact numbers, published rows beside them, and mistakes."""

import csv
import io
import json
import os
import statistics

import pytest

from fig import results, table
from fig.published import KEPT, PUBLISHED, SPARSE_RESNET50, find_published
from fig.table import COLUMNS, FORMATS, rows, spread
from tests.fig.recorded import leave_run
from tests.published_values import PUBLISHED as EXPERIMENTS


def printed(capsys, *argv):
    assert table.main([str(word) for word in argv]) == 0
    return capsys.readouterr().out


@pytest.fixture
def runs(tmp_path):
    for seed, top in enumerate((80.0, 81.0, 82.6)):
        leave_run(tmp_path / "runs", "static_dnw", seed, [50.0, 70.0, top])
    leave_run(tmp_path / "runs", "mine", 0, [40.0, 60.0], data="data.digits:Digits")
    return tmp_path / "runs"


def test_mean_and_deviation_beside_the_published_row(runs, capsys):
    mine, static = csv.DictReader(io.StringIO(printed(capsys, runs, "--format", "csv")))
    assert static["top-1, %"] == f"81.20 ± {statistics.stdev([80, 81, 82.6]):.2f}"
    assert (static["n"], static["published, %"]) == ("3", "80.9 ± 0.6")
    assert static["epochs"] == "3 (shorter than published: 160)"
    assert (static["params"], static["MACs"]) == ("41,001 ± 1", "2.5M")
    assert (static["commit"], static["device"], static["minutes"]) == ("0123456", "cpu", "1.5")
    assert (mine["experiment"], mine["top-1, %"], mine["n"], mine["published, %"], mine["epochs"]) == (
        "mine", "60.00", "1", "", "2"
    )  # fmt: skip


def test_formats(runs, capsys, tmp_path):
    text = printed(capsys, runs)
    assert len({len(line) for line in text.splitlines()}) == 1
    latex = printed(capsys, runs, "--format", "latex")
    assert r"static\_dnw & dnw & 81.20 $\pm$ 1.31 & 3 & 80.9 $\pm$ 0.6" in latex
    assert latex.count(r" \\") == 3
    assert latex.startswith(r"\begin{tabular}{lllllllllll}")
    table.main([str(runs), "--output", str(tmp_path / "t.md")])
    assert (tmp_path / "t.md").read_text() == text
    for make in FORMATS.values():
        assert make(COLUMNS, [])


def test_experiments_of_one_name_that_differ_are_two_rows(runs):
    leave_run(runs / "more", "static_dnw", 7, [10.0, 20.0, 30.0], lr=0.5)
    found = rows(table.read_results([runs, runs / "more"]))
    assert [(row[0], row[3]) for row in found] == [("mine", "1"), ("static_dnw", "3"), ("static_dnw", "1")]


def test_of_two_results_with_one_seed_the_last_one_counts(runs, caplog):
    later = leave_run(runs / "again", "static_dnw", 1, [50.0, 70.0, 99.0])
    os.utime(later / "results.json", (2**31, 2**31))
    found = dict(zip(COLUMNS, rows(table.read_results([runs, runs / "again"]))[1], strict=True))
    assert (found["n"], found["top-1, %"][:5]) == ("3", f"{(80 + 99 + 82.6) / 3:.2f}")
    assert "static_dnw-seed1-20260101 is left out: a later run" in caplog.text


def test_a_full_length_run_is_not_marked():
    result = {"seed": 0, "name": "static_dnw", "top1_accuracy": 80.5, "epochs": 160, "wall_time": 1.0}
    config = {
        "model": "m",
        "data": "data.cifar10:CIFAR10",
        "graph": "dnw",
        "prune_rate": 0,
        "num_epochs": 160,
    }
    (row,) = rows([{**result, "config": {**config, "lr": 0.1}, "commit": None, "device": "cpu"}])
    assert row[COLUMNS.index("epochs")] == "160"
    assert row[COLUMNS.index("commit")] == "unknown"


def test_mistakes(runs, tmp_path, capsys):
    assert table.main([str(tmp_path / "nothing")]) == 2
    assert "nothing: no finished run is there" in capsys.readouterr().err
    (runs / "mine-seed0-20260101" / "results.json").write_text("{")
    assert table.main([str(runs)]) == 2
    assert "results.json: is damaged" in capsys.readouterr().err


def test_spread():
    assert spread([1.0]) == "1.00"
    assert spread([1.0, 3.0]) == "2.00 ± 1.41"
    assert spread([1000, 3000], digits=0) == "2,000 ± 1,414"


def test_published_rows_are_those_of_the_files():
    names = {app.rpartition("/")[2].removesuffix(".yml") for app in EXPERIMENTS}
    known = {name.removesuffix(" (CIFAR-10)") for name in PUBLISHED}
    assert known <= names
    assert find_published("mobilenetv1_dnw_x225", "data.imagenet:ImageNet").top1 == 60.9
    assert find_published("mobilenetv1_dnw_x225", "data.cifar10:CIFAR10").top1 == 89.7
    assert find_published("static_dnw", "data.digits:Digits") is None
    assert all(len(line) <= len(KEPT) for line in SPARSE_RESNET50.values())


def test_results_page(tmp_path, capfd):
    """One experiment of `make results`, at one epoch and one seed."""
    output = tmp_path / "results.md"
    argv = [
        "--folder",
        str(tmp_path / "r"),
        "--seeds",
        "4",
        "--only",
        "digits_random",
        "--output",
        str(output),
    ]
    assert results.main([*argv, "--num_epochs", "1"]) == 0
    text = output.read_text()
    (content,) = [json.loads(path.read_text()) for path in (tmp_path / "r").glob("runs/*/results.json")]
    assert f"| digits_random_graph | {content['top1_accuracy']:.2f} |" in " ".join(text.split())
    assert "--name digits_random_graph --graph random --save_dir results/checkpoints" in text
    capfd.readouterr()
    assert results.main([*argv, "--num_epochs", "1"]) == 0  # finished: nothing is trained again
    assert len(list((tmp_path / "r" / "runs").iterdir())) == 1
    assert results.main([*argv, "--lr", "-1"]) == 2
