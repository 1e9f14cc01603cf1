"""Tables of results: exact numbers, published rows beside them, and mistakes."""

import csv
import io
import json
import os
import re
import statistics

import pytest

from fig import curves, pareto, table
from fig.finished_runs import group_by_experiment, read_results
from fig.paper_results import KEPT, OTHERS, PUBLISHED, SPARSE_RESNET50, find_published, other_settings
from fig.table import COLUMNS, COST_COLUMNS, CSV_COLUMNS, FORMATS, cost_row, rows
from genutil.config import load_config
from genutil.runs.run_folder import run_settings
from tests.conftest import ROOT
from tests.fig.recorded import leave_run
from tests.helpers.published_values import PUBLISHED as EXPERIMENTS


def printed(capsys, *argv):
    assert table.main([str(word) for word in argv]) == 0
    return capsys.readouterr().out


@pytest.fixture
def runs(tmp_path):
    for seed, top in enumerate((80.0, 81.0, 82.6)):
        leave_run(tmp_path / "runs", "static_dnw", seed, [50.0, 70.0, top])
    leave_run(tmp_path / "runs", "mine", 0, [40.0, 60.0], data="data.digits:Digits")
    return tmp_path / "runs"


def test_mean_and_deviation_beside_the_published_row(runs):
    found = rows(read_results([runs]))
    mine, static = (dict(zip(COLUMNS, row, strict=True)) for row in found)
    assert static["top-1, %"] == f"81.20 ± {statistics.stdev([80, 81, 82.6]):.2f}"
    assert (static["n"], static["published, %"]) == ("3", "80.9 ± 0.6")
    assert static["epochs"] == "3 (shorter than published: 160)"
    assert (static["params"], static["MACs"]) == ("41,001 ± 1", "2.6M ± 0.1M")
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


COSTS = (
    "steps", "edges_mean", "effective_edges_mean", "live_nodes_mean", "training_macs_mean",
    "edges_explored_mean", "edge_churn_mean", "dense_layers",
)  # fmt: skip


def test_costs_of_trainings(tmp_path, capsys):
    layers = [
        {"name": "downsample", "params": 9, "macs": 9, "potential": 0},
        {"name": "graph", "params": 3, "macs": 9, "potential": 9},
        {"name": "norm", "params": 3, "macs": 0, "potential": 0},
        {"name": "pool", "params": 0, "macs": 9, "potential": 0},
        {"name": "fc", "params": 9, "macs": 9, "potential": 0},
    ]  # fmt: skip
    for seed in (0, 1):
        macs = {"forward": 2_000_000, "nodes": 2_000_000, "weights": 4_000_000 + seed}
        costs = {
            "steps": 640, "edges": 32_000, "effective_edges": 31_000 + 100 * seed, "live_nodes": 700,
            "training_macs": 3e12, "training_macs_per_image": macs, "edges_explored": 12.5 + seed,
            "edge_churn": 0.25, "layers": layers,
        }  # fmt: skip
        leave_run(tmp_path, "mine", seed, [80.0], results=costs)
    results = read_results([tmp_path])
    assert cost_row("mine", results) == (
        "mine", "640", "32,000 ± 0", "31,050 ± 71", "700 ± 0", "2.0M ± 0.0M", "2.0M ± 0.0M", "4.0M ± 0.0M",
        "3.00T ± 0.00T", "13.0 ± 0.7", "0.25 ± 0.00", "downsample, fc",
    )  # fmt: skip
    (row,) = csv.DictReader(io.StringIO(printed(capsys, tmp_path, "--format", "csv")))
    assert [row[key] for key in COSTS] == [
        "640", "32000", "31050", "700", "3000000000000.0", "13.0", "0.25", "downsample fc"
    ]  # fmt: skip
    leave_run(tmp_path, "network", 0, [80.0], results={"layers": [layers[0], layers[2]]})
    (network,) = [one for one in read_results([tmp_path]) if one["name"].startswith("network")]
    assert table.dense_layers(network) == ["all"]
    leave_run(tmp_path, "old", 0, [80.0])
    assert cost_row("old", read_results([tmp_path])[-1:])[1:] == ("",) * (len(COST_COLUMNS) - 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"layers": [1]}, {"layers": 3}, {"layers": [{"name": "x", "params": 1}]}, {"training_macs": 1},
        {"training_macs": 1, "training_macs_per_image": {"forward": "x", "nodes": 1, "weights": 1}},
    ],
)  # fmt: skip
def test_costs_that_cannot_be_read(tmp_path, capsys, wrong):
    folder = leave_run(tmp_path, "mine", 0, [80.0], results=wrong)
    assert table.main([str(folder)]) == 2
    assert "training_macs_per_image or layers has another type" in capsys.readouterr().err


def test_csv_has_a_number_in_each_cell(runs, capsys):
    text = printed(capsys, runs, "--format", "csv")
    assert tuple(text.splitlines()[0].split(",")) == CSV_COLUMNS
    mine, static = csv.DictReader(io.StringIO(text))
    words = {"experiment", "wiring", "seeds", "commit", "device", "other_settings", *COSTS}
    assert {static[key] for key in COSTS} == {""}  # of runs of earlier versions
    numbers = {key: float(cell) for key, cell in static.items() if key not in words}
    tops, macs = [80, 81, 82.6], [2_500_000, 2_600_000, 2_700_000]
    assert numbers == pytest.approx({
        "n": 3, "mixed_settings": 0, "epochs": 3, "minutes_median": 1.5,
        "top1_mean": 81.2, "top1_std": statistics.stdev(tops), "top1_min": 80, "top1_max": 82.6,
        "params_mean": 41_001, "params_std": 1, "params_min": 41_000, "params_max": 41_002,
        "macs_mean": 2_600_000, "macs_std": statistics.stdev(macs), "macs_min": macs[0], "macs_max": macs[2],
        "published_top1": 80.9, "published_std": 0.6, "published_epochs": 160,
    })  # fmt: skip
    assert [static[key] for key in sorted(words - {*COSTS})] == [
        "0123456789abcdef", "cpu", "static_dnw", "", "0 1 2", "dnw"
    ]  # fmt: skip
    assert (mine["n"], mine["top1_mean"], mine["top1_std"], mine["published_top1"]) == ("1", "60.0", "", "")


def test_columns_of_csv_are_described():
    page = (ROOT / "docs" / "running.md").read_text()
    for name in CSV_COLUMNS:
        head, _, tail = name.partition("_")
        assert f"`{name}`" in page or (f"`{head}_…`" in page and f"`{tail}`" in page), name


def mixed(file="other.pt", epoch=0, **differences):
    pairs = {key: list(pair) for key, pair in differences.items()}
    return {"file": file, "epoch": epoch, "step": 9, "differences": pairs, "earlier": []}


UNKNOWN = {**mixed(), "differences": None}
CLEAN = mixed()


@pytest.mark.parametrize(
    ("record", "mark"),
    [
        (mixed(lr=(0.05, 0.1)), " (resumed from other settings: lr=0.05)"),
        (UNKNOWN, " (resumed from other settings: unknown)"),
        ({**CLEAN, "earlier": [mixed(seed=(3, 1))]}, " (resumed from other settings: seed=3)"),
        ("damaged", " (resumed from other settings: unknown)"),
    ],
)
def test_a_run_of_mixed_settings_does_not_stand_for_a_clean_one(tmp_path, record, mark):
    leave_run(tmp_path, "mine", 1, [50.0])
    leave_run(tmp_path, "mine", 1, [90.0], "20260102-000000", results={"started_from": record})
    leave_run(tmp_path, "mine", 2, [60.0], results={"started_from": CLEAN})
    groups = group_by_experiment(read_results([tmp_path]))
    assert {name: [result["top1_accuracy"] for result in group] for name, group in groups.items()} == {
        "mine": [50, 60], f"mine{mark}": [90]
    }  # fmt: skip


def test_mixed_settings_in_csv(tmp_path, capsys):
    leave_run(tmp_path, "mine", 1, [90.0], results={"started_from": UNKNOWN})
    (row,) = csv.DictReader(io.StringIO(printed(capsys, tmp_path, "--format", "csv")))
    assert row["mixed_settings"] == "1"


def test_an_evaluation_of_mixed_weights_says_so(tmp_path):
    leave_run(tmp_path, "mine", 1, [90.0], results={"started_from": mixed(lr=(1, 2))}, evaluate=True)
    assert list(group_by_experiment(read_results([tmp_path], evaluations=True))) == [
        "mine (weights of other settings: lr=1)"
    ]


def test_results_without_metrics_do_not_stand_for_those_with(tmp_path, caplog):
    leave_run(tmp_path, "mine", 1, [50.0])
    empty = leave_run(tmp_path, "mine", 1, [51.0], "20260102-000000")
    (empty / "metrics.jsonl").unlink()
    ((result,),) = group_by_experiment(read_results([tmp_path])).values()
    assert result["top1_accuracy"] == 50
    assert "20260102-000000 is skipped: it has no metrics" in caplog.text


@pytest.mark.parametrize("program", [table, pareto, curves])
def test_a_folder_that_cannot_be_read_among_named_ones_is_left_out(tmp_path, caplog, program):
    good = leave_run(tmp_path / "runs", "good", 0, [50.0])
    stopped = leave_run(tmp_path / "runs", "stopped", 0, [50.0], finished=False)
    bad = damaged(tmp_path / "runs" / "bad", "{")
    argv = [str(good), str(stopped), str(bad), "--output", str(tmp_path / "out")]
    assert program.main(argv) == 0
    assert (
        "stopped-seed0-20260101-000000: no finished run is there (results.json); it is skipped" in caplog.text
    )
    assert "bad/results.json: is damaged" in caplog.text


def test_names_with_signs_of_the_formats(tmp_path, capsys):
    leave_run(tmp_path, r"50 % {a|b} $x^2$ \n_", 0, [50.0])
    assert r"| 50 % {a\|b} $x^2$ \n_ |" in printed(capsys, tmp_path)
    latex = printed(capsys, tmp_path, "--format", "latex")
    assert r"50 \% \{a|b\} \$x\^{}2\$ \textbackslash{}n\_ &" in latex
    assert curves.main([str(tmp_path), "--output", str(tmp_path / "c")]) == 0


def test_experiments_of_one_name_that_differ_are_rows_of_their_own(runs):
    leave_run(runs / "more", "static_dnw", 7, [10.0, 20.0, 30.0], lr=0.5)
    leave_run(runs / "more", "static_dnw", 8, [10.0, 20.0, 30.0], batch_size=64)
    found = rows(read_results([runs, runs / "more"]))
    assert [(row[0], row[3]) for row in found] == [
        ("mine", "1"),
        ("static_dnw, batch_size=512, lr=0.1", "3"),
        ("static_dnw, batch_size=512, lr=0.5", "1"),
        ("static_dnw, batch_size=64, lr=0.1", "1"),
    ]


@pytest.mark.parametrize(
    ("keys", "number"),
    [
        ({"batch_size": 64}, 2),
        ({"weight_decay": 0.0}, 2),
        ({"data_args": {"num_images": 10}}, 2),
        ({"lr_scheduler": "cosine"}, 2),
        ({"use_graph": "c-seed7/last.pt"}, 1),  # as `{seed}` gives
        ({"use_graph": "c-seed3/last.pt"}, 2),
        ({"workers": 3, "log_dir": "elsewhere", "record_wiring": True}, 1),
    ],
)
def test_only_settings_that_decide_make_another_experiment(tmp_path, keys, number):
    before = {"use_graph": "c-seed1/last.pt"} if "use_graph" in keys else {}
    leave_run(tmp_path, "mine", 1, [50.0], **before)
    leave_run(tmp_path, "mine", 7, [60.0], **keys)
    groups = group_by_experiment(read_results([tmp_path]))
    assert len(groups) == number
    assert sum(len(group) for group in groups.values()) == 2


def test_no_two_experiments_share_a_name(tmp_path):
    """Seeds 1 and 2 follow `{seed}`; each of the others fits one of them but not the other."""
    for seed, start in ((1, "c1.pt"), (2, "c2.pt"), (3, "c2.pt"), (4, "c1.pt")):
        leave_run(tmp_path, "mine", seed, [50.0], use_graph=start)
    groups = group_by_experiment(read_results([tmp_path]))
    assert {name: [result["seed"] for result in group] for name, group in groups.items()} == {
        "mine, use_graph=c2.pt": [1, 2], "mine, use_graph=c2.pt (2)": [3], "mine, use_graph=c1.pt": [4],
    }  # fmt: skip


def test_of_two_results_with_one_seed_the_last_one_counts(runs, caplog):
    later = leave_run(runs / "again", "static_dnw", 1, [50.0, 70.0, 99.0])
    os.utime(later / "results.json", (2**31, 2**31))
    found = dict(zip(COLUMNS, rows(read_results([runs, runs / "again"]))[1], strict=True))
    assert (found["n"], found["top-1, %"][:5]) == ("3", f"{(80 + 99 + 82.6) / 3:.2f}")
    assert "runs/static_dnw-seed1-20260101-000000 is skipped: a later run" in caplog.text


@pytest.mark.parametrize(
    ("keys", "mark"),
    [
        ({}, ""),
        ({"workers": 1, "test_batch_size": 7, "topk": [1]}, ""),
        ({"lr": 0.5, "batch_size": 64}, " (other settings: batch_size, lr)"),
        (
            {"lr": 0.5, "batch_size": 64, "dim": 700, "layers": 4, "momentum": 0.8},
            " (other settings: dim, layers, batch_size and 2 more)",
        ),
        ({"num_epochs": 200}, " (other settings: num_epochs)"),
    ],
)
def test_a_published_value_beside_other_settings_is_marked(tmp_path, keys, mark):
    epochs = keys.get("num_epochs", 160)
    leave_run(tmp_path, "static_dnw", 0, [80.5], results={"epochs": epochs, "commit": None},
              **{"num_epochs": 160, **keys})  # fmt: skip
    (row,) = rows(read_results([tmp_path]))
    found = dict(zip(COLUMNS, row, strict=True))
    assert found["published, %"] == f"80.9 ± 0.6{mark}"
    assert (found["epochs"], found["commit"]) == (str(epochs), "unknown")  # not marked as shorter


def test_paths_of_other_checkpoints_are_free():
    config = run_settings(load_config(ROOT / "apps/medium_scale/mobilenetv1_ft_x225.yml")).values
    assert other_settings("mobilenetv1_ft_x225", {**config, "use_graph": "elsewhere.pt", "seed": 3}) == []
    assert other_settings("mobilenetv1_ft_x225", {**config, "use_graph": None}) == ["use_graph"]
    assert other_settings("mobilenetv1_ft_x225", {**config, "data": "data.digits:Digits"}) == []


def damaged(folder, content):
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


TOPK = {"top2_accuracy": 1.0, "config": {"graph": "dnw", "data": "a:B", "topk": [2]}}
SPARSE = {"top1_accuracy": 1.0, "config": {"model_config": "allsparse10", "data": None}}
TOP1 = {"top1_accuracy": 1.0, "config": {"graph": "dnw", "data": "a:B"}}
WHOLE = {"name": "x", "seed": 0, "wall_time": 1.0, "device": "cpu", "commit": None, "epochs": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged (it is not a mapping)"),
        ({"epochs": 1, "top1_accuracy": 3.0}, "lacks name, seed, config, wall_time"),
        ({**WHOLE, **TOPK}, "has no top-1 accuracy (topk: [2])"),
        ({**WHOLE, **SPARSE}, "holds results of a sparse ResNet, which fig.sparsity draws"),
        ({**WHOLE, **TOP1, "macs": "many"}, "is damaged: macs has another type"),
        ({**WHOLE, **TOP1, "top1_accuracy": [1.0]}, "is damaged: top1_accuracy has another type"),
        ({**WHOLE, **TOP1, "epochs": None}, "is damaged: epochs has another type"),
        ({**WHOLE, **TOP1, "params": float("nan")}, "is damaged: params has another type"),
        ({**WHOLE, **TOP1, "config": {"graph": "dnw"}}, "is damaged: config.data has another type"),
        ({**WHOLE, **TOP1, "seed": True}, "is damaged: seed has another type"),
    ],
)
@pytest.mark.parametrize("program", [table, pareto, curves])
def test_results_that_cannot_be_shown(tmp_path, capsys, caplog, program, content, message):
    """Named by itself: one message. Among others: left out with a warning."""
    bad = damaged(tmp_path / "runs" / "bad", content)
    argv = ["--output", str(tmp_path / "out")]
    assert program.main([str(bad), *argv]) == 2
    assert f"bad/results.json: {message}" in capsys.readouterr().err
    assert program.main([str(tmp_path / "runs"), *argv]) == 2
    assert "is there that can be shown" in capsys.readouterr().err
    leave_run(tmp_path / "runs", "good", 0, [50.0])
    caplog.clear()
    assert program.main([str(tmp_path / "runs"), *argv]) == 0
    assert f"bad/results.json: {message}" in caplog.text


@pytest.mark.parametrize("line", ["[]", '{"epoch": Infinity}', '{"epoch": 0, "epoch_time": "long"}'])
def test_a_table_can_do_without_damaged_metrics(runs, capsys, line):
    for path in runs.glob("*/metrics.jsonl"):
        path.write_text(f"{line}\n")
    assert table.main([str(runs)]) == 0
    assert curves.main([str(runs), "--output", str(runs / "curves")]) == 2
    assert "metrics.jsonl: cannot be read" in capsys.readouterr().err


def test_mistakes(runs, tmp_path, capsys):
    assert table.main([str(tmp_path / "nothing")]) == 2
    assert "nothing: no finished run is there" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert table.main([str(runs), "--output", str(tmp_path / "file" / "table.md")]) == 2
    assert "table.md: cannot be written" in capsys.readouterr().err


def test_a_training_in_parts_counts_with_all_of_them(tmp_path):
    """Seconds of the epochs that an earlier part had done are added, not those that were done again."""
    leave_run(tmp_path, "mine", 0, [10.0, 20.0], finished=False)
    leave_run(tmp_path, "mine", 0, [21.0], "20260102-000000", first=1, finished=False)
    leave_run(tmp_path, "mine", 0, [30.0], "20260103-000000", first=2)
    (found,) = read_results([tmp_path])
    assert found["wall_time"] == 90 + 2 * 60


def test_published_rows_are_those_of_the_files():
    names = {app.rpartition("/")[2].removesuffix(".yml") for app in EXPERIMENTS}
    known = {name.removesuffix(" (CIFAR-10)") for name in PUBLISHED}
    assert known <= names
    assert find_published("mobilenetv1_dnw_x225", "data.imagenet:ImageNet").top1 == 60.9
    assert find_published("mobilenetv1_dnw_x225", "data.cifar10:CIFAR10").top1 == 89.7
    assert find_published("static_dnw", "data.digits:Digits") is None
    assert all(len(line) <= len(KEPT) for line in SPARSE_RESNET50.values())


def numbers(text):
    return [float(number) for number in re.findall(r"\d+\.\d+|\d+", text)]


def test_published_numbers_are_those_of_the_pages():
    """docs/published.md, the README and the sparse ResNets' page, row by row."""
    page, readme = ((ROOT / path).read_text() for path in ("docs/published.md", "README.md"))
    shown = [line for line in page.splitlines() if line.startswith("|")]
    checked = set()
    for name, row in PUBLISHED.items():
        file = name.removesuffix(" (CIFAR-10)")
        if row.macs is not None:
            (line,) = [line for line in shown if f"`{file}.yml`" in line and ".pt`" in line]
            assert line.split("|")[3:5] == [f" {row.macs:g}M ", f" {row.top1} "], name
        elif file.startswith("mobilenet"):
            (line,) = [line for line in shown if f"`{file}.yml`" in line and ".pt`" not in line]
            cells = line.split("|")[2].split(" / ")
            assert cells[len(cells) // 2].strip() == str(row), name  # of three rates, 0.01 is the file's
        else:
            kind = "random" if "random" in file else "dnw"
            start = file.removesuffix("_random_graph").removesuffix("_dnw")
            (line,) = [line for line in shown if f"`{start}_{{random_graph,dnw}}.yml`" in line]
            assert line.split("|")[2 if kind == "random" else 3].strip() == str(row), name
            assert str(row) in readme
        checked.add(name)
    assert checked == set(PUBLISHED)
    for name in ("mobilenetv1_random_graph_x225", "mobilenetv1_dnw_x225"):
        assert f" {PUBLISHED[name].top1} (" in readme
        assert str(PUBLISHED[f"{name} (CIFAR-10)"]) in readme
    for name, points in OTHERS.items():
        (line,) = [line for line in shown if line.startswith(f"| {name} ") and "M / " in line]
        costs, tops = (numbers(cell) for cell in line.split("|")[3:5])
        assert list(points) == list(zip(costs, tops, strict=True)), name


def test_published_sparse_numbers_are_those_of_the_page():
    text = (ROOT / "imagenet_sparsity_experiments/README.md").read_text()
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert [int(cell) for cell in lines["kept %"].split("|")[2:-1]] == list(KEPT)
    for start, file in (("all layers sparse", "allsparseK"), ("first layer dense", "ignorefirstK")):
        cells = lines[f"{start} (`{file}`)"].split("|")[2:-1]
        assert [float(cell) for cell in cells] == list(SPARSE_RESNET50[start])
    (others,) = re.findall(r"^Others at 10 / 20 / 30 % kept: (.*?);\s+STR", text, re.MULTILINE | re.DOTALL)
    scratch, rigl = others.split(";")
    assert numbers(scratch) == list(SPARSE_RESNET50["sparse from scratch"])
    assert numbers(rigl) == list(SPARSE_RESNET50["RigL (ERK)"])
