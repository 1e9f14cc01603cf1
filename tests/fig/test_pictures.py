"""Stills and animations: written, of the right size, and drawn from the right numbers."""

import numpy as np
import pytest
from PIL import Image

from fig import schematic, wiring_gif
from fig.drawing import drawn_columns, node_places
from fig.style import drawn
from genutil.wiring_file import LayerState, Record, State, WiringFile
from tests.fig.test_wiring_page import EDGES, LAYOUT, state


@pytest.fixture
def recorded(tmp_path):
    file = WiringFile(tmp_path / "wiring.npz", LAYOUT)
    for step in EDGES:
        file.append(state(step))
    return tmp_path


@pytest.fixture
def record():
    return Record(LAYOUT, [state(step) for step in EDGES])


def written(path, *names):
    for name in names:
        with Image.open(path / f"{name}.png") as image:
            assert min(image.size) > 300
            assert np.asarray(image.convert("L")).std() > 5  # something is drawn
        assert (path / f"{name}.svg").read_text().startswith("<?xml")


def test_animation_and_stills(recorded, capsys):
    assert wiring_gif.main([str(recorded), "--frames", "2"]) == 0
    assert "wiring.gif: 0.0" in capsys.readouterr().out
    written(recorded / "pictures", "adjacency", "degrees", "churn", "live_nodes")
    with Image.open(recorded / "pictures" / "wiring.gif") as image:
        assert image.n_frames == 2  # the first and the last
        first = np.asarray(image.convert("RGB")).astype(int)
        image.seek(1)
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - first).max() > 100


def test_the_same_record_gives_the_same_files(recorded, tmp_path):
    for name in ("one", "other"):
        assert wiring_gif.main([str(recorded), "--output", str(tmp_path / name)]) == 0
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "other" / file.name).read_bytes(), file.name


def lines_of(axis):
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.get_lines()}


def test_numbers_of_the_stills(record):
    with drawn() as pyplot:
        (axis,) = wiring_gif.churn(pyplot, record, LAYOUT[0]).axes
        ((_, (epochs, parts)),) = lines_of(axis).items()
        assert (epochs, parts) == ([1, 2], [50, 25])  # 2 of 4 edges, then 1 of 4
        (axis,) = wiring_gif.live_nodes(pyplot, record, LAYOUT[0]).axes
        assert lines_of(axis) == {"graph (of 8)": ([0, 10, 20], [3, 4, 4])}
        first, last, _ = wiring_gif.adjacency(pyplot, record, LAYOUT[0]).axes
        matrix = np.asarray(last.images[0].get_array())
        assert {tuple(place) for place in np.argwhere(matrix == 1)} == set(EDGES[20])
        assert np.asarray(first.images[0].get_array()).sum() == len(EDGES[0])
        out, into = wiring_gif.degrees(pyplot, record, LAYOUT[0]).axes
        assert (out.get_xlabel(), into.get_xlabel()) == ("edges out of a node", "edges into a node")


def test_places_are_columns():
    places, columns = node_places(LAYOUT[0]), drawn_columns(LAYOUT[0])["columns"]
    assert len(places) == 10
    for number, column in enumerate(columns):
        own = places[column["start"] : column["end"]]
        assert np.allclose(own[:, 0], number / 3)
        assert np.all(np.diff(own[:, 1]) < 0)


def test_a_layer_by_name(recorded, capsys):
    layouts = [LAYOUT[0], {**LAYOUT[0], "name": "other"}]
    small, large = state(0).layers["graph"], state(10).layers["graph"]
    record = Record(layouts, [State({"step": 0, "epoch": 0}, {"graph": small, "other": large})])
    assert wiring_gif.find_layer(record, None)["name"] == "other"
    assert wiring_gif.find_layer(record, "graph")["name"] == "graph"
    assert wiring_gif.main([str(recorded), "--layer", "grap"]) == 2
    assert "--layer: there is no grap; did you mean graph?" in capsys.readouterr().err
    assert isinstance(small, LayerState)


def test_schematic(tmp_path):
    assert schematic.main(["--output", str(tmp_path / "s")]) == 0
    written(tmp_path, "s")
