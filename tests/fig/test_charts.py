"""Curves, fronts and the picture of sparse ResNets: drawn from the right numbers."""

import json
import statistics

import numpy as np
import pytest

from fig import churn, curves, pareto, sparsity
from fig.curves import read_curves
from fig.finished_runs import read_results
from fig.paper_results import KEPT, SPARSE_RESNET50
from fig.style import pyplot_in_style
from genutil.config import load_config
from genutil.exceptions import UserError
from tests.conftest import ROOT
from tests.fig.drawn_files import lines_of, written
from tests.fig.recorded import leave_run


@pytest.fixture
def runs(tmp_path):
    for seed, top in enumerate((80.0, 82.0)):
        leave_run(tmp_path / "runs", "static_dnw", seed, [50.0, top])
    leave_run(tmp_path / "runs", "mine", 0, [40.0, 60.0])
    return tmp_path / "runs"


def curves_of(runs, phase="val"):
    return {
        name: (epochs.tolist(), values.tolist())
        for name, (epochs, values) in read_curves(read_results([runs]), phase).items()
    }


def test_curves_are_means_of_seeds(runs, tmp_path):
    assert curves_of(runs) == {"mine": ([1, 2], [[40, 60]]), "static_dnw": ([1, 2], [[50, 80], [50, 82]])}
    assert curves_of(runs, "train")["mine"] == ([1, 2], [[35, 55]])
    with pyplot_in_style() as pyplot:
        (axis,) = curves.draw(pyplot, read_curves(read_results([runs]), "val"), "val").axes
        assert lines_of(axis) == {"mine": ([1, 2], [40, 60]), "static_dnw (2 seeds)": ([1, 2], [50, 81])}
        (band,) = axis.collections
        (corners,) = [path.vertices for path in band.get_paths()]
        std = statistics.stdev([80, 82])
        assert sorted({float(y) for x, y in corners if x == 2}) == pytest.approx([81 - std, 81 + std])
        assert {float(y) for x, y in corners if x == 1} == {50}
        assert all(float(tick).is_integer() for tick in axis.get_xticks())
    assert curves.main([str(runs), "--output", str(tmp_path / "c")]) == 0
    written(tmp_path, "c")


def test_experiments_of_one_name_have_curves_of_their_own(runs):
    for lr in (0.3, 0.2):
        leave_run(runs, "mine", 0, [1.0, 2.0], f"2026010{lr * 10:.0f}-000000", lr=lr)
        leave_run(runs, "mine", 0, [3.0, 4.0], f"2026020{lr * 10:.0f}-000000", lr=lr, momentum=0.5)
    assert len(curves_of(runs)) == 6


def test_a_training_in_parts_is_one_curve(tmp_path):
    """Stopped twice; an epoch that was done again counts as it was done last; others' parts are not taken."""
    leave_run(tmp_path, "mine", 0, [10.0, 20.0], "20260101-000000", finished=False)
    leave_run(tmp_path, "mine", 0, [21.0], "20260101-000000.2", first=1, finished=False)
    leave_run(tmp_path, "mine", 0, [98.0, 99.0], "20260101-120000", finished=False, lr=0.5)
    leave_run(tmp_path, "mine", 1, [97.0, 96.0], "20260101-120000", finished=False)
    leave_run(tmp_path, "mine", 0, [30.0], "20260102-000000", first=2)
    leave_run(tmp_path, "mine", 0, [95.0, 94.0], "20260103-000000", finished=False)  # begun after the end
    assert curves_of(tmp_path) == {"mine": ([1, 2, 3], [[10, 21, 30]])}


def test_a_curve_whose_beginning_is_lost_begins_where_it_is_known(tmp_path):
    leave_run(tmp_path, "mine", 0, [20.0, 30.0], first=1)
    assert curves_of(tmp_path) == {"mine": ([2, 3], [[20, 30]])}


@pytest.mark.parametrize("content", [None, "{", "", '{"epoch": 0, "phase": "val"}'])
def test_a_run_whose_metrics_cannot_be_read_is_left_out(runs, caplog, capsys, tmp_path, content):
    bad = leave_run(runs, "bad", 0, [1.0, 2.0]) / "metrics.jsonl"
    bad.unlink() if content is None else bad.write_text(content)
    assert set(curves_of(runs)) == {"mine", "static_dnw"}
    assert "bad-seed0-20260101-000000" in caplog.text and "it is skipped" in caplog.text
    assert curves.main([str(runs), "--output", str(tmp_path / "c")]) == 0
    assert curves.main([str(bad.parent), "--output", str(tmp_path / "c")]) == 2
    assert "bad-seed0-20260101-000000" in capsys.readouterr().err


def test_an_earlier_part_that_cannot_be_read_is_left_out(tmp_path, caplog):
    part = leave_run(tmp_path, "mine", 0, [10.0], finished=False)
    leave_run(tmp_path, "mine", 0, [20.0, 30.0], "20260102-000000", first=1)
    (part / "metrics.jsonl").write_text("{")
    assert curves_of(tmp_path) == {"mine": ([2, 3], [[20, 30]])}
    assert "this part of the training is skipped" in caplog.text


def test_parts_of_fewer_epochs_belong_to_a_longer_training(tmp_path):
    leave_run(tmp_path, "a", 0, [10.0, 20.0], num_epochs=2, lr_scheduler="multistep")
    leave_run(tmp_path, "a", 0, [30.0], "20260102-000000", first=2, lr_scheduler="multistep")
    leave_run(tmp_path, "b", 0, [10.0, 20.0], num_epochs=2, lr_scheduler="cosine")
    leave_run(tmp_path, "b", 0, [30.0], "20260102-000000", first=2, lr_scheduler="cosine")
    found = curves_of(tmp_path)
    assert found["a, num_epochs=3"] == ([1, 2, 3], [[10, 20, 30]])
    assert found["b, num_epochs=3"] == ([3], [[30]])


def test_a_curve_of_mixed_settings_does_not_take_the_epochs_of_a_clean_run(tmp_path):
    leave_run(tmp_path, "mine", 0, [10.0, 20.0, 30.0])
    start = {"file": "x.pt", "epoch": 0, "step": 9, "differences": {"lr": [1, 2]}, "earlier": []}
    leave_run(tmp_path, "mine", 0, [7.0], "20260102-000000", first=1, finished=False)
    again = {**start, "epoch": 1, "differences": {}, "earlier": [start]}
    leave_run(tmp_path, "mine", 0, [8.0], "20260103-000000", first=2, results={"started_from": again})
    assert curves_of(tmp_path) == {
        "mine": ([1, 2, 3], [[10, 20, 30]]),
        "mine (resumed from other settings: lr=1)": ([2, 3], [[7, 8]]),
    }


def test_curves_of_different_epochs_are_refused(runs, capsys, tmp_path):
    leave_run(runs, "static_dnw", 9, [1.0, 2.0], first=1)  # as many, but others
    assert curves.main([str(runs), "--output", str(tmp_path / "c")]) == 2
    assert "static_dnw: its seeds have different numbers of epochs" in capsys.readouterr().err


def test_twenty_experiments_can_be_distinguished_without_colour(tmp_path):
    for number in range(20):
        leave_run(tmp_path, f"x{number}", 0, [1.0, 2.0])
    with pyplot_in_style() as pyplot:
        figure = curves.draw(pyplot, read_curves(read_results([tmp_path]), "val"), "val")
        markers = {line.get_marker() for line in figure.axes[0].get_lines()}
    assert len(markers) == 20


def points_of(axis):
    """Of each experiment: (x, y, half the error bar along x, along y); None: no bar."""
    found = {}
    for container in axis.containers:
        data, _, bars = container.lines
        sizes = {}
        for bar in bars:
            (start, end) = bar.get_segments()[0]
            direction = "x" if start[0] != end[0] else "y"
            sizes[direction] = float(np.abs(end - start).max()) / 2
        place = (float(data.get_xdata()[0]), float(data.get_ydata()[0]))
        found[container.get_label()] = (*place, sizes.get("x"), sizes.get("y"))
    return found


def test_published_front():
    points = pareto.published_points()
    assert points["DNW"] == [(42.1, 60.9), (66.7, 65.0), (154, 70.4)]
    assert points["DNW, wired classifier"] == [(22.1, 50.3), (41.2, 59.9)]
    assert set(points) == {"DNW", "DNW, wired classifier", "random graph", "MobileNetV1", "ShuffleNetV2"}
    with pyplot_in_style() as pyplot:
        (axis,) = pareto.draw(pyplot, []).axes
        assert {name: list(zip(*pair, strict=True)) for name, pair in lines_of(axis).items()} == {
            name: [tuple(map(float, point)) for point in line] for name, line in points.items()
        }


def test_measured_points_are_means_of_seeds(runs, tmp_path):
    timed = {"latency_ms": 2.5, "engine": "csr", "top1_accuracy": 61.0}
    evaluation = leave_run(runs, "timed", 0, [61.0], results=timed, evaluate=True, resume="x.pt")
    content = json.loads((evaluation / "results.json").read_text())
    del content["epochs"], content["macs"]
    (evaluation / "results.json").write_text(json.dumps(content))
    with pyplot_in_style() as pyplot:
        figure = pareto.draw(pyplot, read_results([runs], evaluations=True))
        published, counted, measured = figure.axes
        assert [axis.get_title() for axis in (published, counted, measured)] == [
            "ImageNet, as published", "measured here", "measured here"
        ]  # fmt: skip
        found = points_of(counted)
        std = statistics.stdev([80, 82])
        assert found.pop("static_dnw (2 seeds)") == pytest.approx(
            (2.55, 81, statistics.stdev([2.5, 2.6]), std)
        )
        assert found == {"mine": (2.5, 60, None, None)}
        assert points_of(measured) == {"timed, csr": (2.5, 61, None, None)}
        figure.canvas.draw()
        for axis in figure.axes:  # nothing of an axis lies below its legend
            legend = axis.get_legend().get_window_extent()
            assert legend.x0 >= axis.get_window_extent().x1
    assert pareto.main([str(runs), "--output", str(tmp_path / "p")]) == 0
    written(tmp_path, "p")


def test_a_panel_of_training_costs(runs):
    macs = {
        "training_macs": 3_000_000_000_000,
        "training_macs_per_image": dict(forward=1, nodes=1, weights=2),
    }
    leave_run(runs, "costly", 0, [70.0], results=macs)
    with pyplot_in_style() as pyplot:
        results = read_results([runs])
        assert points_of(pareto.draw(pyplot, results).axes[2]) == {"costly": (3, 70, None, None)}
        figure = pareto.draw_measured(pyplot, results)
        assert [set(points_of(axis)) for axis in figure.axes] == [
            {"static_dnw (2 seeds)", "mine", "costly"}, {"costly"}
        ]  # fmt: skip


def test_churn_has_a_picture_for_each_rule(tmp_path, capsys):
    for rule, seed, first in (("dnw", 0, 40.0), ("dnw", 1, 50.0), ("rigl", 0, 5.0)):
        folder = leave_run(tmp_path / "runs", rule, seed, [1.0, 2.0], graph=rule)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        lines = [line | ({"edge_churn": first / (line["epoch"] + 1)} if line["phase"] == "train" else {})
                 for line in lines]  # fmt: skip
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pyplot_in_style() as pyplot:
        (axis,) = churn.draw(
            pyplot, read_curves(read_results([tmp_path / "runs"]), "train", "edge_churn")
        ).axes
        assert lines_of(axis) == {"dnw (2 seeds)": ([1, 2], [45, 22.5]), "rigl": ([1, 2], [5, 2.5])}
    assert churn.main([str(tmp_path / "runs"), "--output", str(tmp_path / "c")]) == 0
    written(tmp_path / "c", "churn_dnw", "churn_rigl")
    leave_run(tmp_path / "old", "x", 0, [1.0])
    assert churn.main([str(tmp_path / "old"), "--output", str(tmp_path / "c")]) == 2
    assert "its metrics hold no edge_churn" in capsys.readouterr().err


def test_evaluations_of_other_weights_are_points_of_their_own(tmp_path):
    for number, file in enumerate(("best.pt", "last.pt"), 1):
        leave_run(tmp_path, "mine", 0, [50.0 + number], f"2026010{number}-000000", evaluate=True, resume=file)
    with pyplot_in_style() as pyplot:
        figure = pareto.draw(pyplot, read_results([tmp_path], evaluations=True))
        assert {name: point[1] for name, point in points_of(figure.axes[1]).items()} == {
            "mine, checkpoint=best.pt": 51, "mine, checkpoint=last.pt": 52
        }  # fmt: skip


OPTIONS = {
    "arch": "resnet50", "model_config": "allsparse10", "num_classes": 1000, "image_size": 224,
    "data_backend": "pytorch", "prof": -1,
}  # fmt: skip


def raport(path, changes=None, **options):
    content = {
        "density": 0.123,
        "top1_accuracy": 74.0,
        "epochs": 100,
        "config": {},
        "options": {**OPTIONS, **options},
    }
    path.write_text(json.dumps({**content, **(changes or {})}))
    return path


@pytest.mark.parametrize(
    ("config", "changes", "name", "kept"),
    [
        ("allsparse10", {}, "allsparse10", 10),
        ("ignorefirst35", {"epochs": 30}, "ignorefirst35 (30 epochs)", 35),
        ("dense", {"epochs": 120}, "dense", 100),
        (
            "allsparse10",
            {
                "started_from": {
                    "file": "",
                    "epoch": 0,
                    "step": 0,
                    "differences": {"lr": [1, 2]},
                    "earlier": [],
                }
            },
            "allsparse10, resumed from other settings",
            10,
        ),
        ("tdsparse5", {"epochs": 100, "images": 49_990, "corrupt_images": 10}, "tdsparse5", 5),
    ],
)
def test_reports_are_drawn_at_what_their_layers_keep(tmp_path, config, changes, name, kept):
    found = sparsity.read_report(raport(tmp_path / "raport.json", changes, model_config=config))
    assert found == (name, kept, 74.0)


@pytest.mark.parametrize(
    ("name", "label", "kept"),
    [
        ("dense", "dense", 100), ("allsparse10", "allsparse10", 10), ("ignorefirst10", "ignorefirst10", 10),
        ("tdsparse10", "tdsparse10", 10),
    ],
)  # fmt: skip
def test_results_of_apps_are_drawn_as_reports_are(tmp_path, name, label, kept):
    config = load_config(ROOT / "apps" / "resnet" / f"resnet50_{name}.yml").model_dump()
    content = {"top1_accuracy": 74.0, "epochs": 100, "images": 50_000, "config": config}
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    assert sparsity.read_report(path) == (label, kept, 74.0)
    for change, message in (
        ({"graph": "random"}, "SparseResNet, random, prune_rate"),
        ({"data": "data.synthetic:SyntheticImages"}, "random images"),
        ({"output_size": 10, "max_batches": 3}, "10 classes, the first 3 batches"),
    ):
        if name != "dense" or "graph" not in change:
            path.write_text(json.dumps({**content, "config": {**config, **change}}))
            with pytest.raises(UserError, match=message):
                sparsity.read_report(path)


def test_an_evaluation_does_not_tell_its_epochs(tmp_path):
    path = raport(tmp_path / "raport.json")
    content = json.loads(path.read_text())
    del content["epochs"]
    path.write_text(json.dumps(content))
    assert sparsity.read_report(path).name == "allsparse10 (unknown epochs)"


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"arch": "resnet18", "num_classes": 10}, "is a report of resnet18, 10 classes; this picture"),
        ({}, {"image_size": 64}, "images of 64 pixels"),
        ({}, {"data_backend": "synthetic"}, "random images"),
        ({}, {"prof": 20}, "the first 20 batches"),
        ({"images": 2_000}, {}, "2000 images"),
        ({}, {"model_config": "mine"}, "the configuration mine"),
        ({"options": None}, {}, "is not a report of a trained sparse ResNet"),
        ({"top1_accuracy": None}, {}, "is not a report of a trained sparse ResNet"),
    ],
)
def test_other_reports_are_refused(tmp_path, capsys, changes, options, message):
    path = raport(tmp_path / "raport.json", changes, **options)
    assert sparsity.main([str(path), "--output", str(tmp_path / "s")]) == 2
    assert message in capsys.readouterr().err


def test_a_report_that_cannot_be_drawn_among_others_is_left_out(tmp_path, caplog):
    good, bad = raport(tmp_path / "good.json"), raport(tmp_path / "bad.json", arch="resnet18")
    assert sparsity.main([str(bad), str(good), "--output", str(tmp_path / "s")]) == 0
    assert "bad.json: is a report of resnet18; this picture" in caplog.text


def test_sparsity(tmp_path):
    path = raport(tmp_path / "raport.json")
    with pyplot_in_style() as pyplot:
        (axis,) = sparsity.draw(pyplot, [sparsity.read_report(path)]).axes
        found = lines_of(axis)
    assert found.pop("allsparse10, measured") == ([10], [74])
    assert found == {
        f"{name}, as published": (list(KEPT[: len(values)]), list(values))
        for name, values in SPARSE_RESNET50.items()
    }
    assert sparsity.main([str(path), "--output", str(tmp_path / "s")]) == 0
    written(tmp_path, "s")
    (tmp_path / "file").write_text("")
    assert sparsity.main(["--output", str(tmp_path / "file" / "s")]) == 2
