"""The animation and the stills of a recorded wiring: written, and drawn from the right numbers."""

import io

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from PIL import Image, ImageColor

from fig import wiring_gif, wiring_stills
from fig.drawing import node_positions
from fig.style import DEAD, INK, NEGATIVE, NEW, POSITIVE, pyplot_in_style
from fig.wiring_gif import draw_frame, edge_lines
from genutil.runs.wiring_record import LayerState, Record, State, read_record
from tests.fig.drawn_files import lines_of, written
from tests.fig.wirings import EDGES, LARGE, LAYOUT, large_state, layer_state, leave_record, state


@pytest.fixture
def recorded(tmp_path):
    return leave_record(tmp_path / "run", LAYOUT, map(state, EDGES))


@pytest.fixture
def record():
    return Record(LAYOUT, [state(step) for step in EDGES])


def pictures(content_or_path):
    with Image.open(content_or_path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            yield np.asarray(image.convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Folders with the pictures of one record, drawn twice."""
    folder = leave_record(tmp_path_factory.mktemp("run"), LAYOUT, map(state, EDGES))
    outputs = [folder / name for name in ("one", "other")]
    for output in outputs:
        assert wiring_gif.main([str(folder), "--frames", "2", "--output", str(output)]) == 0
    return outputs


def test_animation_and_stills(drawn):
    written(drawn[0], "adjacency", "degrees", "churn", "live_nodes")
    first, last = pictures(drawn[0] / "wiring.gif")
    assert np.abs(first - last).max() > 100


def test_the_same_record_gives_the_same_files(drawn):
    one, other = drawn
    assert len(list(one.iterdir())) == 9
    for file in one.iterdir():
        assert file.read_bytes() == (other / file.name).read_bytes(), file.name


def test_the_animation_has_the_colours_of_the_style(drawn):
    seen = [
        {tuple(colour) for colour in picture.reshape(-1, 3)} for picture in pictures(drawn[0] / "wiring.gif")
    ]
    for name in (POSITIVE, NEGATIVE, NEW, INK, DEAD, "#ffffff"):
        assert all(ImageColor.getrgb(name) in colours for colours in seen), name
    grey = [np.dot(ImageColor.getrgb(name), (0.299, 0.587, 0.114)) for name in (POSITIVE, NEGATIVE)]
    assert abs(grey[0] - grey[1]) > 60


def told_edges(before, now):
    """{colour: {(target, source): how opaque}}"""
    node = {tuple(place): number for number, place in enumerate(node_positions(LAYOUT[0]).tolist())}
    return {
        colour: {
            (node[tuple(path[-1])], node[tuple(path[0])]): round(float(part), 3)
            for path, part in zip(*lines, strict=True)
        }
        for colour, lines in edge_lines(LAYOUT[0], before, now).items()
    }


def test_edges_have_the_colour_of_their_sign_and_new_ones_their_own():
    now = state(10).layers["graph"]  # weights 1/4, −2/4, 3/4, −4/4
    faded = {DEAD: {(6, 3): 0.55}}  # node 6 leads nowhere
    assert told_edges(None, now) == {
        POSITIVE: {(2, 0): 0.15}, NEGATIVE: {(5, 2): 0.3, (9, 5): 0.9}, **faded
    }  # fmt: skip
    assert told_edges(state(0).layers["graph"], now) == {
        POSITIVE: {(2, 0): 0.15}, NEW: {(5, 2): 0.9, (9, 5): 0.9}, **faded
    }  # fmt: skip


def test_many_new_edges_fade():
    layer = {
        "name": "graph", "targets": 80, "sources": 80, "acyclic": True, "outputs": None,
        "columns": [{"sources": [0, 40], "targets": None}, {"sources": [40, 80], "targets": [40, 80]}],
    }  # fmt: skip
    places, live = (np.arange(40, 80)[:, None] * 80 + np.arange(40)).ravel(), np.ones(80, bool)

    def opacity(known):
        before, now = (LayerState(some, np.ones(some.size, np.float32), live) for some in (known, places))
        return edge_lines(layer, before, now)[NEW][1]

    assert opacity(places[1:]).tolist() == [0.9]
    assert np.unique(opacity(places[:0])).tolist() == [300 / 1600]


@pytest.mark.parametrize(("step", "live"), [(0, {0, 1, 3, 8, 9}), (10, {0, 2, 3, 5, 8, 9})])
def test_live_and_dead_nodes_of_a_frame(record, step, live):
    places = node_positions(LAYOUT[0])
    with pyplot_in_style() as pyplot:
        (axis,) = draw_frame(pyplot, LAYOUT[0], None, state(step)).axes
        dots = [found for found in axis.collections if isinstance(found, PathCollection)]
        found = {to_hex(some.get_facecolor()[0]): some.get_offsets().tolist() for some in dots}
    assert found == {INK: places[sorted(live)].tolist(), DEAD: places[sorted({*range(10)} - live)].tolist()}


def test_numbers_of_the_stills(record):
    with pyplot_in_style() as pyplot:
        (axis,) = wiring_stills.churn(pyplot, record, LAYOUT[0]).axes
        ((_, (epochs, parts)),) = lines_of(axis).items()
        assert (epochs, parts) == ([1, 2], [50, 25])  # 2 of 4 edges, then 1 of 4
        assert all(float(tick).is_integer() for tick in axis.get_xticks())
        (axis,) = wiring_stills.live_nodes(pyplot, record, LAYOUT[0]).axes
        assert lines_of(axis) == {"graph (of 8)": ([0, 10, 20], [3, 4, 4])}
        assert axis.get_ylim()[1] > 4 and axis.get_xlim()[1] > 20
        first, last, _ = wiring_stills.adjacency(pyplot, record, LAYOUT[0]).axes
        matrix = np.asarray(last.images[0].get_array())
        assert {tuple(place) for place in np.argwhere(matrix == 1)} == set(EDGES[20])
        assert np.asarray(first.images[0].get_array()).sum() == len(EDGES[0])


def test_degrees_out_of_and_into_nodes():
    star = [(target, 0) for target in range(2, 5)]  # three edges out of node 0, one into each of three
    record = Record(LAYOUT, [State({"step": 7, "epoch": 1}, {"graph": layer_state(star)})])
    with pyplot_in_style() as pyplot:
        heights = {
            axis.get_xlabel(): axis.patches[-1].get_xy()[:, 1].max()
            for axis in wiring_stills.degrees(pyplot, record, LAYOUT[0]).axes
        }
    assert heights == {"edges out of a node": 7, "edges into a node": 5}  # that have none


def test_a_record_that_begins_later_says_so(record):
    later = Record(LAYOUT, [state(10), state(20)])
    for shown_record, first in ((record, "before training"), (later, "at step 10")):
        with pyplot_in_style() as pyplot:
            titles = [
                axis.get_title() for axis in wiring_stills.adjacency(pyplot, shown_record, LAYOUT[0]).axes[:2]
            ]
            axis = wiring_stills.degrees(pyplot, shown_record, LAYOUT[0]).axes[0]
            legend = [text.get_text() for text in axis.get_legend().get_texts()]
        assert titles == legend == [first, "at step 20"]


def test_a_layer_by_name(recorded, capsys):
    layouts = [LAYOUT[0], {**LAYOUT[0], "name": "other"}]
    small, large = state(0).layers["graph"], state(10).layers["graph"]
    record = Record(layouts, [State({"step": 0, "epoch": 0}, {"graph": small, "other": large})])
    assert wiring_gif.find_layer(record, None)["name"] == "other"
    assert wiring_gif.find_layer(record, "graph")["name"] == "graph"
    assert wiring_gif.main([str(recorded), "--layer", "grap"]) == 2
    assert "--layer: there is no grap; did you mean graph?" in capsys.readouterr().err


def test_colours_of_the_legend_are_kept_exactly_in_a_crowded_animation(tmp_path):
    """Other colours do not shift them: the palette is the same for every record."""
    record = read_record(leave_record(tmp_path / "run", LARGE, [large_state(0), large_state(1)]) / "wiring")
    states = record.states
    found = list(pictures(io.BytesIO(wiring_gif.animation(record, LARGE[0], 60))))
    known = {tuple(colour) for colour in wiring_gif.palette().tolist()}
    with pyplot_in_style() as pyplot:
        for before, one, frame in zip((None, states[0]), states, found, strict=True):
            assert {tuple(colour) for colour in frame.reshape(-1, 3).tolist()} <= known
            figure = draw_frame(pyplot, LARGE[0], before, one)
            figure.canvas.draw()
            pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
            for name in (POSITIVE, NEGATIVE, NEW, INK, DEAD, "#ffffff"):
                colour = ImageColor.getrgb(name)
                exact = (pixels == colour).all(axis=2)
                assert exact.any(), name
                assert (frame[exact] == colour).all(), name


def test_of_many_edges_the_strongest_are_drawn():
    one = large_state(0)
    lines = edge_lines(LARGE[0], None, one.layers["graph"])
    assert sum(len(paths) for paths, _ in lines.values()) == 1500
    with pyplot_in_style() as pyplot:
        (axis,) = draw_frame(pyplot, LARGE[0], None, one).axes
        assert "strongest 1,500 of 5,000 edges" in axis.get_title(loc="left")


def test_progress_on_a_terminal_is_one_line_and_elsewhere_plain_lines(record, monkeypatch, capsys):
    assert wiring_gif.animation(record, LAYOUT[0], 60)
    assert capsys.readouterr().err.splitlines() == [f"frame {n} of 3" for n in (1, 2, 3)]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(wiring_gif._with_progress(range(3))) == [0, 1, 2]
    # How many of the bar's states are drawn depends on the machine's speed; the first always is.
    progress = capsys.readouterr().err
    assert "\n" not in progress and "frames" in progress and "0/3" in progress and "\r" in progress


def test_progress_of_a_long_animation_is_a_few_lines(capsys):
    assert list(wiring_gif._with_progress(range(60))) == list(range(60))
    assert capsys.readouterr().err.splitlines() == [f"frame {n} of 60" for n in (12, 24, 36, 48, 60)]
