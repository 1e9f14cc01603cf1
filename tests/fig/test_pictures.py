"""Curves, fronts and the like: written, of the right size, and drawn from the right numbers."""

import pytest

from fig import curves, pareto, schematic, sparsity
from fig.curves import read_curves
from fig.runs import read_results
from fig.style import drawn
from tests.fig.drawn_files import lines_of, written
from tests.fig.recorded import leave_run


@pytest.fixture
def runs(tmp_path):
    for seed, top in enumerate((80.0, 82.0)):
        leave_run(tmp_path / "runs", "static_dnw", seed, [50.0, top])
    leave_run(tmp_path / "runs", "mine", 0, [40.0, 60.0])
    return tmp_path / "runs"


def test_curves_are_means_of_seeds(runs, tmp_path):
    found = read_curves(read_results([runs]), "val")
    assert found["static_dnw"].tolist() == [[50, 80], [50, 82]]
    assert found["mine"].tolist() == [[40, 60]]
    assert read_curves(read_results([runs]), "train")["mine"].tolist() == [[35, 55]]
    with drawn() as pyplot:
        (axis,) = curves.draw(pyplot, found, "val").axes
        assert lines_of(axis) == {"mine": ([1, 2], [40, 60]), "static_dnw (2 seeds)": ([1, 2], [50, 81])}
    assert curves.main([str(runs), "--output", str(tmp_path / "c")]) == 0
    written(tmp_path, "c")


def test_curves_of_different_length_are_refused(runs, capsys, tmp_path):
    leave_run(runs, "static_dnw", 9, [1.0, 2.0, 3.0])  # a run that was cut off before its last epochs
    assert curves.main([str(runs), "--output", str(tmp_path / "c")]) == 2
    assert "static_dnw: its seeds have different numbers of epochs" in capsys.readouterr().err


def test_pareto(runs, tmp_path):
    points = pareto.published_points()
    assert points["DNW"] == [(42.1, 60.9), (66.7, 65.0), (154, 70.4)]
    assert points["DNW, wired classifier"] == [(22.1, 50.3), (41.2, 59.9)]
    assert set(points) == {"DNW", "DNW, wired classifier", "random graph", "MobileNetV1", "ShuffleNetV2"}
    timed = {"name": "mine", "latency_ms": 2.5, "top1_accuracy": 61.0, "engine": "csr"}
    with drawn() as pyplot:
        figure = pareto.draw(pyplot, [*read_results([runs]), timed])
        assert [axis.get_title() for axis in figure.axes] == [
            "ImageNet, as published",
            "measured here",
            "measured here",
        ]
        assert lines_of(figure.axes[2]) == {"mine, csr": ([2.5], [61.0])}
    assert pareto.main(["--output", str(tmp_path / "p")]) == 0
    written(tmp_path, "p")


def test_sparsity(tmp_path, capsys):
    path = tmp_path / "raport.json"
    path.write_text('{"name": "resnet50_allsparse10", "density": 0.1, "top1_accuracy": 74.0}')
    assert sparsity.read_raport(path) == ("resnet50_allsparse10", 10, 74)
    assert sparsity.main([str(path), "--output", str(tmp_path / "s")]) == 0
    written(tmp_path, "s")
    path.write_text("{}")
    assert sparsity.main([str(path)]) == 2
    assert "raport.json: is no report of a sparse ResNet" in capsys.readouterr().err


def test_schematic(tmp_path):
    assert schematic.main(["--output", str(tmp_path / "s")]) == 0
    written(tmp_path, "s")
