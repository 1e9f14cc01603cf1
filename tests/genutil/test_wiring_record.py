"""The record of a wiring: exact, compact, and readable after anything that happens to its writer."""

import io
import json
import shutil
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genutil.exceptions import UserError
from genutil.runs.wiring_record import LayerState, RecordWriter, State, read_record
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
        indices = np.sort(random.choice(size, min(edges, size // 2), replace=False)).astype(np.int64)
        weights = random.standard_normal(indices.size).astype(np.float16).astype(np.float32)
        layers[layer["name"]] = LayerState(indices, weights, random.random(layer["sources"]) < 0.5)
    return State({"step": step, "epoch": step / 10, "train_accuracy": 12.5}, layers)


def same(one, other):
    return one.numbers == other.numbers and all(
        np.array_equal(getattr(one.layers[name], field), getattr(other.layers[name], field))
        for name in one.layers
        for field in ("edge_indices", "weights", "live")
    )


def write(folder, steps):
    writer = RecordWriter(folder, LAYOUT)
    for step in steps:
        writer.append(state(step))
    return writer


def steps_of(folder):
    return [one.numbers["step"] for one in read_record(folder).states]


def test_states_are_read_as_they_were_written(tmp_path):
    folder = tmp_path / "wiring"
    write(folder, [])
    assert read_record(folder).states == []
    write(folder, [0, 1, 5])
    record = read_record(folder)
    assert record.layout == LAYOUT
    assert [one.numbers["step"] for one in record.states] == [0, 1, 5]
    assert all(same(one, state(one.numbers["step"])) for one in record.states)


@given(indices=st.sets(st.integers(0, 30 * 40 - 1)))
@examples(50)
def test_any_edges(indices, tmp_path_factory):
    folder = tmp_path_factory.mktemp("record") / "wiring"
    layer = LayerState(
        np.array(sorted(indices), np.int64), np.ones(len(indices), np.float32), np.zeros(40, bool)
    )
    RecordWriter(folder, LAYOUT[:1]).append(State({"step": 0, "epoch": 0}, {"graph": layer}))
    (one,) = read_record(folder).states
    assert np.array_equal(one.layers["graph"].edge_indices, layer.edge_indices)


def test_large_differences_of_indices(tmp_path):
    layout = [{"name": "graph", "targets": 3000, "sources": 3000}]
    indices = np.array([0, 70_000, 8_999_999])
    layer = LayerState(indices, np.array([1, -2, 0.5], np.float32), np.ones(3000, bool))
    RecordWriter(tmp_path, layout).append(State({"step": 0, "epoch": 0}, {"graph": layer}))
    assert np.array_equal(read_record(tmp_path).states[0].layers["graph"].edge_indices, indices)


def test_numpy_reads_a_state(tmp_path):
    write(tmp_path, [0, 7])
    with np.load(tmp_path / "000001.npz") as file:
        assert len(file.files) == 7
        assert json.loads(str(file["state"]))["step"] == 7
        indices = np.cumsum(file["graph/index_deltas"], dtype=np.int64) - 1
        assert np.array_equal(indices, state(7).layers["graph"].edge_indices)


def test_a_state_is_added_without_reading_or_writing_those_before(tmp_path):
    writer = write(tmp_path, [0, 1])
    before = {path: path.stat() for path in tmp_path.iterdir()}
    writer.append(state(2))
    (new,) = set(tmp_path.iterdir()) - set(before)
    assert new.name == "000002.npz"
    for path, stat in before.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)


def test_a_record_of_more_than_a_million_states_stays_in_order(tmp_path):
    writer = write(tmp_path, [0])
    writer._next = 999_999
    for step in (1, 2):
        writer.append(state(step))
    assert steps_of(tmp_path) == [0, 1, 2]
    assert RecordWriter(tmp_path, LAYOUT, step=1)._next == 1_000_000


def test_a_deleted_record_is_started_again(tmp_path, caplog):
    folder = tmp_path / "run" / "wiring"
    writer = write(folder, [0, 1])
    shutil.rmtree(tmp_path / "run")
    for step in (2, 3):
        writer.append(state(step))
    assert read_record(folder).layout == LAYOUT
    assert steps_of(folder) == [2, 3]
    assert caplog.text.count("was deleted; a new record is started without the states before") == 1


def test_a_killed_writer_leaves_complete_states(tmp_path, monkeypatch):
    writer = write(tmp_path, [0, 1])

    def killed(source, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            writer.append(state(2))
    (tmp_path / ".000002.npz.partial").write_bytes(b"PK\x03\x04")  # as after a power cut
    assert steps_of(tmp_path) == [0, 1]
    RecordWriter(tmp_path, LAYOUT, step=9).append(state(5))
    assert steps_of(tmp_path) == [0, 1, 5]


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_a_state_that_is_cut_off_is_skipped_with_one_warning(tmp_path, caplog, length):
    write(tmp_path, [0, 1, 2])
    for name in ("000001.npz", "000002.npz"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:length])
    assert steps_of(tmp_path) == [0]
    (line,) = caplog.text.splitlines()
    assert "2 damaged states are skipped (000001.npz: " in line


def test_later_states_are_written_again(tmp_path):
    write(tmp_path, [0, 4, 8])
    writer = RecordWriter(tmp_path, LAYOUT, step=4)
    assert writer.count == 2
    writer.append(state(8, seed=1))
    states = read_record(tmp_path).states
    assert [one.numbers["step"] for one in states] == [0, 4, 8]
    assert same(states[2], state(8, seed=1))


def test_no_record(tmp_path):
    with pytest.raises(UserError, match=r"x: is not a record of a wiring; train with --record_wiring"):
        read_record(tmp_path / "x")
    (tmp_path / "layout.json").write_text("3")
    with pytest.raises(UserError, match=r"is not a readable record of a wiring \(its layout"):
        read_record(tmp_path)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def text(value):
    return npy(np.array(json.dumps(value)))


LAYOUTS = {
    "cut off": b"[{",
    "not UTF-8": b"\xff",
    "nested too deep": b"[" * 100_000,
    "no layers": b"[null]",
    "a layer without sizes": json.dumps([{"name": "graph"}]).encode(),
    "a layer of a trillion nodes": json.dumps([{**LAYOUT[0], "sources": 10**12}, LAYOUT[1]]).encode(),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_a_damaged_layout_is_refused_and_replaced(tmp_path, case):
    write(tmp_path, [0, 1])
    (tmp_path / "layout.json").write_bytes(LAYOUTS[case])
    with pytest.raises(UserError, match="is not a readable record of a wiring"):
        read_record(tmp_path)
    RecordWriter(tmp_path, LAYOUT, step=1).append(state(2))
    assert steps_of(tmp_path) == [0, 1, 2]


HUGE = npy(np.ones(9)).replace(b"(9,)", b"(9999999999999,)")
DAMAGED = {
    "an array's header that is cut off": ("state", text({"step": 1, "epoch": 0})[:40]),
    "an array's header with no end": ("state", text({"step": 1}).replace(b"}", b"(", 1)),
    "an array larger than the memory": ("graph/index_deltas", HUGE),
    "a pickled object": ("state", npy(np.array(state, dtype=object))),
    "a state that is not a mapping": ("state", text(5)),
    "a state without an epoch": ("state", text({"step": 1})),
    "a step that is not a number": ("state", text({"step": "1", "epoch": 0})),
    "an accuracy that is not a number": ("state", text({"step": 1, "epoch": 0, "val_accuracy": []})),
    "a text nested too deep": ("state", npy(np.array("[" * 100_000))),
    "differences that are dates": ("graph/index_deltas", npy(np.zeros(50, "M8[s]"))),
    "differences in two dimensions": ("graph/index_deltas", npy(np.ones((5, 10), np.uint16))),
    "edges outside of the matrix": ("graph/index_deltas", npy(np.full(50, 60_000, np.uint16))),
    "the same edge twice": ("graph/index_deltas", npy(np.zeros(50, np.uint16))),
    "too few weights": ("graph/weights", npy(np.ones(7, np.float16))),
    "live nodes of another type": ("graph/live", npy(np.ones(5))),
    "live nodes of another number": ("graph/live", npy(np.ones(50, np.uint8))),
    "no live nodes": ("graph/live", None),
}


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path, contents, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            if content is not None:
                archive.writestr(name, content)


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_state_is_skipped_and_removed_by_the_next_writer(tmp_path, caplog, case):
    write(tmp_path, [0, 1, 2])
    name, content = DAMAGED[case]
    path = tmp_path / "000001.npz"
    pack(path, {**members(path), f"{name}.npy": content})
    assert steps_of(tmp_path) == [0, 2]
    assert "1 damaged states are skipped (000001.npz: " in caplog.text
    RecordWriter(tmp_path, LAYOUT, step=2).append(state(3))
    assert "1 damaged states are removed (000001.npz: " in caplog.text
    assert steps_of(tmp_path) == [0, 2, 3]
    assert not path.exists()


def test_an_array_does_not_unpack_to_all_memory(tmp_path, monkeypatch):
    write(tmp_path, [0, 1])
    monkeypatch.setattr("genutil.runs.wiring_record._MAX_BYTES", 1000)
    path = tmp_path / "000001.npz"
    pack(path, {**members(path), "graph/live.npy": npy(np.zeros(2000, np.uint8))})
    assert steps_of(tmp_path) == [0]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_bound_are_refused(tmp_path, method, caplog):
    write(tmp_path, [0, 1])
    pack(tmp_path / "000001.npz", members(tmp_path / "000001.npz"), method)
    assert steps_of(tmp_path) == [0]
    assert "another method than deflate" in caplog.text


def test_a_record_of_an_earlier_version_is_read(tmp_path):
    """One zip file, whose members have the state's number in front and `gaps` for `index_deltas`."""
    write(tmp_path / "new", [0, 5])
    contents = {"layout.npy": text(LAYOUT)}
    for path in sorted((tmp_path / "new").glob("*.npz")):
        for name, content in members(path).items():
            contents[f"{path.stem}/{name.replace('index_deltas', 'gaps')}"] = content
    pack(tmp_path / "wiring.npz", contents)
    record = read_record(tmp_path / "wiring.npz")
    assert record.layout == LAYOUT
    assert all(same(one, state(step)) for one, step in zip(record.states, (0, 5), strict=True))
    (tmp_path / "wiring.npz").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"wiring.npz: is not a readable record of a wiring"):
        read_record(tmp_path / "wiring.npz")
