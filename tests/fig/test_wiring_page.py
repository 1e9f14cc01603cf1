"""The page of a wiring: what is in it, and which states it shows."""

import json
import re

import numpy as np
import pytest

from fig import wiring_gif, wiring_page
from fig.drawing import drawn_columns, drawn_edges, edge_paths, node_positions
from fig.wiring_page import make_page, select_states
from genutil.config import load_config
from genutil.runs.wiring_record import LayerState, Record, RecordWriter, State
from models import build_model
from models.wiring_state import wiring_layout, wiring_state
from tests.conftest import ROOT
from tests.fig.wirings import CYCLIC, EDGES, LAYOUT, leave_record, state


@pytest.fixture
def record(tmp_path):
    """A run's folder."""
    return leave_record(tmp_path / "small<run>", LAYOUT, map(state, EDGES))


def head_of(page):
    return json.loads(re.search(rb'id="head" type="application/json">(.*?)</script>', page, re.DOTALL)[1])


def test_edges_as_they_are_drawn():
    """Nodes 8 and 9 are the outputs. Edges back, and to an input, are never read."""

    def drawn(*pairs):
        places = np.array(sorted(target * 8 + source for target, source in pairs))
        weights = np.arange(1, len(places) + 1, dtype=np.float32)
        codes, kept = drawn_edges(LAYOUT[0], LayerState(places, weights, np.ones(8, bool)))
        return [divmod(int(code), 10) for code in codes], kept.tolist()

    assert drawn((2, 0), (6, 3)) == ([(2, 0), (6, 3)], [1, 2])
    assert drawn((6, 5), (7, 7)) == ([(8, 5), (9, 7)], [1, 2])  # from the last group: to the outputs
    assert drawn((0, 3), (2, 3), (3, 0), (5, 6)) == ([(3, 0)], [3])  # back, within a group, to a non-output


@pytest.mark.parametrize("name", ["static_dnw", "discrete_time_dnw"])
def test_what_is_drawn_is_what_the_forward_pass_reads(name):
    model = build_model(load_config(ROOT / f"apps/small_scale/{name}.yml"))
    (layer,), (layer_state,) = wiring_layout(model), wiring_state(model).values()
    codes, weights = drawn_edges(layer, layer_state)
    in_use = model.graph.in_use().flatten(1)
    read = in_use & model.stage().readable_mask() if layer["acyclic"] else in_use
    assert codes.size == weights.size == int(read.sum())
    assert np.all(np.diff(codes) > 0)


def test_places_are_columns():
    for layout, xs in ((LAYOUT[0], (0, 1 / 3, 2 / 3, 1)), (CYCLIC[0], (0.1, 0.5, 0.9))):
        places, columns = node_positions(layout), drawn_columns(layout)
        assert len(places) == columns[-1]["end"]
        for column, x in zip(columns, xs, strict=True):
            own = places[column["start"] : column["end"]]
            assert np.allclose(own[:, 0], x, atol=1e-3)
            assert np.all(np.diff(own[:, 1]) < 0)


def test_edges_within_a_column_are_bows_and_a_node_may_lead_to_itself():
    top, bottom, beside = [0.5, 0.9], [0.5, 0.1], [0.9, 0.3]
    pairs = np.array([[top, beside], [top, bottom], [bottom, top], [top, top]])
    line, down, up, loop = edge_paths(pairs[:, 0], pairs[:, 1])
    assert line.tolist() == [top, beside]
    for path, end in ((down, bottom), (up, top), (loop, top)):
        assert np.allclose(path[-1], end)
    assert 0.55 < down[:, 0].max() < 0.65 and down[:, 0].min() == 0.5
    assert 0.35 < up[:, 0].min() < 0.45 and up[:, 0].max() == 0.5
    assert 0.01 < np.ptp(loop[:, 0]) < 0.05 and 0.01 < np.ptp(loop[:, 1]) < 0.05


def test_the_page_holds_everything_and_says_how_much(record, capsys):
    assert wiring_page.main([str(record)]) == 0
    page = (record / "wiring.html").read_bytes()
    assert "3 of 3 states" in capsys.readouterr().out
    assert not re.search(rb"(?:src|href)=|https?://|@import|url\(", page)
    head = head_of(page)
    counts = [
        [state["layers"][0][key] for key in ("edges", "total", "added", "removed")]
        for state in head["states"]
    ]
    assert counts == [[3, 3, 3, 0], [4, 4, 2, 1], [3, 4, 0, 1]]
    assert [column["label"] for column in head["layers"][0]["columns"]] == [
        "inputs", "group 1", "group 2", "outputs"
    ]  # fmt: skip
    assert "<title>small&lt;run></title>" in page.decode()


def many(count, epoch_steps=1):
    """States of `count` steps; only those at the end of an epoch have numbers of a validation."""
    states = []
    for step in range(count):
        numbers = {"step": step, "epoch": step / epoch_steps, "train_accuracy": step / 100}
        if step and step % epoch_steps == 0:
            numbers["val_accuracy"] = 50 + step / 100
        states.append(State(numbers, state(10).layers))
    return Record(LAYOUT, states)


def test_fewer_states_where_there_are_too_many(monkeypatch):
    _, shown = make_page(many(50), "many", 20)
    assert shown == 20
    whole, _ = make_page(many(50), "many", 50)
    monkeypatch.setattr(wiring_page, "_MAX_BYTES", len(whole) - 500)
    page, shown = make_page(many(50), "many", 50)
    assert len(page) <= len(whole) - 500
    assert 1 < shown < 50
    steps = [state["numbers"]["step"] for state in head_of(page)["states"]]
    assert (steps[0], steps[-1]) == (0, 49)


def test_ends_of_epochs_are_shown_first():
    states = many(95, epoch_steps=10).states
    for count in (10, 20, 94):
        chosen = select_states(states, count)
        assert len(chosen) == len(set(chosen)) == max(count, 11) - (count == 10)
        assert (chosen[0], chosen[-1]) == (0, 94)
        if count > 10:
            assert {*range(0, 95, 10)} <= {*chosen}
        else:
            assert {*chosen} <= {*range(0, 95, 10), 94}
    assert select_states(states, 95) == list(range(95))
    assert select_states(states, 1) == [94]


def test_curves_tell_all_states_and_a_state_tells_what_its_accuracy_covers():
    page, _ = make_page(many(41, epoch_steps=10), "many", 6)
    head = head_of(page)
    assert head["recorded"]["steps"] == list(range(41))
    assert head["recorded"]["train"] == [step / 100 for step in range(41)]
    val = head["recorded"]["val"]
    assert {step: value for step, value in enumerate(val) if value is not None} == {
        10: 50.1, 20: 50.2, 30: 50.3, 40: 50.4
    }  # fmt: skip
    since_of = {state["numbers"]["step"]: state["since"] for state in head["states"]}
    assert len(since_of) == 6
    assert {since_of.pop(0), *since_of} > {None, 10, 20, 30, 40}
    assert all(since == step - 1 for step, since in since_of.items())


def test_mistakes(tmp_path, record, capsys):
    for program, output in ((wiring_page, "page.html"), (wiring_gif, "pictures")):
        assert program.main([str(tmp_path)]) == 2
        assert "has no recorded wiring; train with --record_wiring" in capsys.readouterr().err
        (tmp_path / "file").touch()
        assert program.main([str(record), "--output", str(tmp_path / "file" / output)]) == 2
        errors = capsys.readouterr().err
        assert f"{tmp_path}/file/{output}" in errors and "cannot be written" in errors


@pytest.mark.parametrize(
    ("layout", "message"), [([], "the network has no wired layer"), (LAYOUT, "holds no state yet")]
)
def test_records_with_nothing_to_draw(layout, message, tmp_path, capsys):
    file = RecordWriter(tmp_path / "wiring", layout)
    if not layout:
        file.append(State({"step": 0, "epoch": 0}, {}))
    for program in (wiring_page, wiring_gif):
        assert program.main([str(tmp_path)]) == 2
        assert f"wiring: {message}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["wiring"]


DAMAGED = {
    "acyclic": {"acyclic": 3},
    "columns": {"columns": []},
    "columns 0 sources": {"columns": [{"sources": [0, None], "targets": None}]},
    "columns 0": {"columns": [{"sources": [0, 2], "targets": [0, 5]}]},
    "columns 0 targets": {"columns": [{"sources": [0, 2], "targets": [5, 3]}]},
    "outputs": {"outputs": [8, 6]},
    "inside of the matrix": {"outputs": [6, 9]},
    "must lie inside": {"columns": [{"sources": [0, 9], "targets": None}]},
}


@pytest.mark.parametrize("where", DAMAGED)
@pytest.mark.parametrize("program", [wiring_page, wiring_gif])
def test_a_layout_that_cannot_be_drawn_is_named(tmp_path, capsys, program, where):
    layout = [{**LAYOUT[0], **DAMAGED[where]}]
    folder = leave_record(tmp_path / "run", layout, [state(0)])
    assert program.main([str(folder)]) == 2
    (message,) = capsys.readouterr().err.strip().splitlines()
    assert "wiring: is damaged: its layer graph cannot be drawn" in message and where in message
