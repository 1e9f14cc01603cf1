"""The record of a wiring: exact, compact, and whole whatever happens to its writer."""

import io
import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genutil.errors import UserError
from genutil.runs.growing_zip import GrowingZip, read_members
from genutil.runs.wiring_record import LayerState, State, WiringFile, read_record
from tests.helpers.examples import examples

LAYOUT = [
    {"name": "graph", "targets": 30, "sources": 40},
    {"name": "linear.graph", "targets": 2, "sources": 9},
]


def state(step, seed=0, edges=50):
    random = np.random.default_rng([seed, step])
    layers = {}
    for layer in LAYOUT:
        size = layer["targets"] * layer["sources"]
        places = np.sort(random.choice(size, min(edges, size // 2), replace=False)).astype(np.int64)
        weights = random.standard_normal(places.size).astype(np.float16).astype(np.float32)
        layers[layer["name"]] = LayerState(places, weights, random.random(layer["sources"]) < 0.5)
    return State({"step": step, "epoch": step / 10, "train_accuracy": 12.5}, layers)


def same(one, other):
    return one.numbers == other.numbers and all(
        np.array_equal(getattr(one.layers[name], part), getattr(other.layers[name], part))
        for name in one.layers
        for part in ("places", "weights", "live")
    )


def written(path, steps):
    file = WiringFile(path, LAYOUT)
    for step in steps:
        file.append(state(step))
    return file


def test_states_come_back_as_they_were(tmp_path):
    path = tmp_path / "wiring.npz"
    assert read_record(written(path, []).path).states == []
    written(path, [0, 1, 5])
    record = read_record(path)
    assert record.layout == LAYOUT
    assert [found.numbers["step"] for found in record.states] == [0, 1, 5]
    assert all(same(found, state(found.numbers["step"])) for found in record.states)


@given(places=st.sets(st.integers(0, 30 * 40 - 1)))
@examples(50)
def test_any_places(places, tmp_path_factory):
    path = tmp_path_factory.mktemp("record") / "wiring.npz"
    layer = LayerState(
        np.array(sorted(places), np.int64), np.ones(len(places), np.float32), np.zeros(40, bool)
    )
    WiringFile(path, LAYOUT[:1]).append(State({"step": 0, "epoch": 0}, {"graph": layer}))
    (found,) = read_record(path).states
    assert np.array_equal(found.layers["graph"].places, layer.places)


def test_large_gaps(tmp_path):
    layout = [{"name": "graph", "targets": 3000, "sources": 3000}]
    places = np.array([0, 70_000, 8_999_999])
    layer = LayerState(places, np.array([1, -2, 0.5], np.float32), np.ones(3000, bool))
    WiringFile(tmp_path / "w.npz", layout).append(State({"step": 0, "epoch": 0}, {"graph": layer}))
    assert np.array_equal(read_record(tmp_path / "w.npz").states[0].layers["graph"].places, places)


def test_numpy_reads_it(tmp_path):
    written(tmp_path / "wiring.npz", [0, 7])
    with np.load(tmp_path / "wiring.npz") as file:
        assert len(file.files) == 1 + 2 * 7
        places = np.cumsum(file["000001/graph/gaps"], dtype=np.int64) - 1
        assert np.array_equal(places, state(7).layers["graph"].places)


def test_numpy_reads_it_at_any_time_and_all_of_it_in_the_end(tmp_path):
    file = written(tmp_path / "wiring.npz", [])
    for step in range(60):
        file.append(state(step))
        with np.load(file.path) as found:
            seen = [name for name in found.files if name.endswith("/state")]
            assert len(seen) >= (step + 1) / 2
            assert all(f'"step": {place}' in str(found[name]) for place, name in enumerate(seen))
    file.close()
    with np.load(file.path) as found:
        assert len(found.files) == 1 + 60 * 7
    assert len(read_record(file.path).states) == 60


def test_a_file_that_is_gone_is_begun_anew(tmp_path, caplog):
    file = written(tmp_path / "run" / "wiring.npz", [0, 1])
    shutil.rmtree(tmp_path / "run")
    for step in (2, 3):
        file.append(state(step))
    found = read_record(file.path)
    assert found.layout == LAYOUT
    assert [one.numbers["step"] for one in found.states] == [2, 3]
    assert caplog.text.count("wiring.npz is gone and is begun anew; the states in it are lost") == 1
    shutil.rmtree(tmp_path / "run")
    file.close()
    assert not file.path.exists()


def test_a_record_that_is_cut_anywhere_keeps_its_whole_states(tmp_path):
    """As after a writer was killed, or a disk was full; and the next writer goes on from there."""
    path, cut = tmp_path / "wiring.npz", tmp_path / "cut.npz"
    sizes = []
    file = written(path, [])
    for step in range(4):
        file.append(state(step))
        sizes.append(path.stat().st_size)
    whole = path.read_bytes()
    seen = set()
    for length in range(len(whole) - 1, 1200, -97):
        cut.write_bytes(whole[:length])
        found = read_record(cut).states
        assert all(same(one, state(step)) for step, one in enumerate(found))
        seen.add(len(found))
        WiringFile(cut, LAYOUT, step=100).append(state(50))
        assert [one.numbers["step"] for one in read_record(cut).states] == [*range(len(found)), 50]
    assert {0, 1, 2, 3, 4} <= seen | {0}


@pytest.mark.parametrize("damage", [b"\x00" * 40, b"PK\x03\x04" + b"\xff" * 60])
def test_what_a_writer_leaves_in_the_middle_of_a_state(tmp_path, damage):
    path = tmp_path / "wiring.npz"
    written(path, [0])
    end = path.read_bytes().index(b"PK\x01\x02")  # the directory, which the next state is written over
    path.write_bytes(path.read_bytes()[:end] + damage)
    assert len(read_record(path).states) == 1


def test_later_states_are_told_again(tmp_path):
    path = tmp_path / "wiring.npz"
    written(path, [0, 4, 8])
    file = WiringFile(path, LAYOUT, step=4)
    assert file.count == 2
    file.append(state(8, seed=1))
    found = read_record(path).states
    assert [one.numbers["step"] for one in found] == [0, 4, 8]
    assert same(found[2], state(8, seed=1))


def test_what_is_no_record(tmp_path):
    with pytest.raises(UserError, match=r"x.npz: there is no such file; train with --record_wiring"):
        read_record(tmp_path / "x.npz")
    (tmp_path / "x.npz").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"x.npz: is no record of a wiring"):
        read_record(tmp_path / "x.npz")
    np.savez_compressed(tmp_path / "x.npz", layout=np.array("3"))
    with pytest.raises(UserError, match=r"x.npz: is no record of a wiring"):
        read_record(tmp_path / "x.npz")


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def text(value):
    return npy(np.array(json.dumps(value)))


HUGE = npy(np.ones(9)).replace(b"(9,)", b"(9999999999999,)")
WRONG = {
    "a layout of no layers": ("layout.npy", text([None])),
    "a layer without sizes": ("layout.npy", text([{"name": "graph"}])),
    "a layer of a trillion nodes": ("layout.npy", text([{**LAYOUT[0], "sources": 10**12}, LAYOUT[1]])),
    "an array's header that is cut off": ("layout.npy", text(LAYOUT)[:40]),
    "an array's header with no end": ("layout.npy", text(LAYOUT).replace(b"}", b"(", 1)),
    "an array larger than the memory": ("000001/graph/gaps.npy", HUGE),
    "a state that is no mapping": ("000001/state.npy", text(5)),
    "a state without an epoch": ("000001/state.npy", text({"step": 1})),
    "a step that is no number": ("000001/state.npy", text({"step": "1", "epoch": 0})),
    "an accuracy that is no number": ("000001/state.npy", text({"step": 1, "epoch": 0, "val_accuracy": []})),
    "a text nested too deep": ("000001/state.npy", npy(np.array("[" * 100_000))),
    "gaps that are dates": ("000001/graph/gaps.npy", npy(np.zeros(50, "M8[s]"))),
    "gaps in two dimensions": ("000001/graph/gaps.npy", npy(np.ones((5, 10), np.uint16))),
    "edges outside of the matrix": ("000001/graph/gaps.npy", npy(np.full(50, 60_000, np.uint16))),
    "the same edge twice": ("000001/graph/gaps.npy", npy(np.zeros(50, np.uint16))),
    "too few weights": ("000001/graph/weights.npy", npy(np.ones(7, np.float16))),
    "live nodes of another type": ("000001/graph/live.npy", npy(np.ones(5))),
    "live nodes of another number": ("000001/graph/live.npy", npy(np.ones(50, np.uint8))),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_damaged_record_is_named_and_can_be_written_on(tmp_path, case):
    """Readers refuse it; a training that is started again keeps the states before the damage."""
    path = tmp_path / "wiring.npz"
    written(path, [0, 1, 2])
    name, content = WRONG[case]
    GrowingZip(path, {**dict(read_members(path)), name: content})
    with pytest.raises(UserError, match=r"wiring.npz: is no record of a wiring"):
        read_record(path)
    WiringFile(path, LAYOUT, step=1).append(state(2))
    kept = [0] if name.startswith("000001") else [0, 1]
    assert [one.numbers["step"] for one in read_record(path).states] == [*kept, 2]


def test_a_member_does_not_unpack_to_all_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("genutil.runs.growing_zip._LARGEST", 1000)
    GrowingZip(tmp_path / "x.zip", {"small": b"x" * 1000, "large": b"x" * 1001})
    assert list(dict(read_members(tmp_path / "x.zip"))) == ["small"]
