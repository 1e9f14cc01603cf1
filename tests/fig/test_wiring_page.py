"""The page of a wiring: what is in it, and how it behaves in a browser."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from fig import wiring_page
from fig.drawing import drawn_edges
from fig.wiring_page import make_page
from genutil.config import load_config
from genutil.wiring_file import LayerState, Record, State, WiringFile
from models import build_model
from models.wiring_state import wiring_layout, wiring_state
from tests.conftest import ROOT
from tests.fig.browser import needs_browser, opened

REFERENCE = ROOT / "tests" / "fig" / "wiring.png"
LAYOUT = [
    {
        "name": "graph", "targets": 8, "sources": 8, "acyclic": True, "outputs": [6, 8],
        "columns": [
            {"sources": [0, 2], "targets": None}, {"sources": [2, 5], "targets": [2, 5]},
            {"sources": [5, 8], "targets": [5, 8]},
        ],
    }
]  # fmt: skip
"""Two inputs, two blocks of three; the last two nodes are also outputs."""
EDGES = {
    0: [(2, 0), (3, 1), (6, 3)],
    10: [(2, 0), (5, 2), (7, 5), (6, 3)],
    20: [(2, 0), (5, 2), (7, 5), (0, 3)],
}
"""(target, source) by step."""


def state(step):
    pairs = sorted(EDGES[step])
    places = np.array([target * 8 + source for target, source in pairs])
    weights = np.array([(-1) ** n * (n + 1) / len(pairs) for n in range(len(pairs))], np.float32)
    live = np.isin(np.arange(8), [source for _, source in pairs])
    numbers = {"step": step, "epoch": step / 10, "train_accuracy": 20.0 + step, "val_accuracy": 30.0 + step}
    return State(numbers if step else {"step": 0, "epoch": 0}, {"graph": LayerState(places, weights, live)})


@pytest.fixture
def record(tmp_path):
    """A run's folder."""
    folder = tmp_path / "small<run>"
    folder.mkdir()
    file = WiringFile(folder / "wiring.npz", LAYOUT)
    for step in EDGES:
        file.append(state(step))
    return folder


def test_edges_as_they_are_drawn():
    """Nodes 8 and 9 are the outputs. Edges back, and to an input, are never read."""

    def drawn(*pairs):
        places = np.array(sorted(target * 8 + source for target, source in pairs))
        weights = np.arange(1, len(places) + 1, dtype=np.float32)
        codes, kept = drawn_edges(LAYOUT[0], LayerState(places, weights, np.ones(8, bool)))
        return [divmod(int(code), 10) for code in codes], kept.tolist()

    assert drawn((2, 0), (6, 3)) == ([(2, 0), (6, 3)], [1, 2])
    assert drawn((6, 5), (7, 7)) == ([(8, 5), (9, 7)], [1, 2])  # from the last block: to the outputs
    assert drawn((0, 3), (2, 3), (3, 0), (5, 6)) == ([(3, 0)], [3])  # back, within a block, to a non-output


@pytest.mark.parametrize("name", ["static_dnw", "discrete_time_dnw"])
def test_what_is_drawn_is_what_the_forward_pass_reads(name):
    model = build_model(load_config(ROOT / f"apps/small_scale/{name}.yml"))
    (layer,), (layer_state,) = wiring_layout(model), wiring_state(model).values()
    codes, weights = drawn_edges(layer, layer_state)
    in_use = model.graph.in_use().flatten(1)
    read = in_use & model.stage().readable() if layer["acyclic"] else in_use
    assert codes.size == weights.size == int(read.sum())
    assert np.all(np.diff(codes) > 0)


def test_the_page_holds_everything_and_says_how_much(record, capsys):
    assert wiring_page.main([str(record)]) == 0
    page = (record / "wiring.html").read_text()
    assert "3 of 3 states" in capsys.readouterr().out
    assert not re.search(r"(?:src|href)=|https?://|@import|url\(", page)
    head = json.loads(re.search(r'id="head" type="application/json">(.*?)</script>', page, re.DOTALL)[1])
    assert [told["counts"] for told in head["states"]] == [[3], [4], [3]]
    assert [told["totals"] for told in head["states"]] == [[3], [4], [4]]
    assert [column["label"] for column in head["layers"][0]["columns"]] == [
        "inputs", "block 1", "block 2", "outputs"
    ]  # fmt: skip
    assert "<title>small&lt;run></title>" in page


def test_fewer_states_where_there_are_too_many(monkeypatch):
    states = [State({"step": n, "epoch": n}, state(10).layers) for n in range(50)]
    _, shown = make_page(Record(LAYOUT, states), "many", 20)
    assert shown == 20
    whole, _ = make_page(Record(LAYOUT, states), "many", 50)
    monkeypatch.setattr(wiring_page, "_LARGEST", len(whole) - 500)
    page, shown = make_page(Record(LAYOUT, states), "many", 50)
    assert len(page) <= len(whole) - 500
    assert 1 < shown < 50
    head = json.loads(re.search(rb'application/json">(.*?)</script>', page, re.DOTALL)[1])
    steps = [told["numbers"]["step"] for told in head["states"]]
    assert (steps[0], steps[-1]) == (0, 49)


def test_mistakes(tmp_path, capsys):
    assert wiring_page.main([str(tmp_path)]) == 2
    assert "wiring.npz: there is no such file; train with --record_wiring" in capsys.readouterr().err


@pytest.fixture
def page(record):
    assert wiring_page.main([str(record)]) == 0
    with opened(record / "wiring.html", color_scheme="light") as page:
        yield page


def picture(page):
    return np.array(Image.open(io.BytesIO(page.locator("#wiring").screenshot())).convert("RGB")).astype(int)


def numbers(page):
    return page.locator("#numbers").text_content()


@needs_browser
def test_slider_keys_and_play_change_picture_and_numbers(page):
    assert "3 edges, 0 new and 0 gone" in numbers(page)
    assert "training accuracy –" in numbers(page)
    first = picture(page)
    page.locator("#slider").fill("1")
    assert "4 edges, 2 new and 1 gone since the state before; 4 of 8 nodes live" in numbers(page)
    assert "training accuracy 30.0 %, validation 40.0 %" in numbers(page)
    assert page.locator("#step").text_content() == "step 10, epoch 1"
    assert (np.abs(picture(page) - first).max(axis=2) > 40).sum() > 100
    page.locator("#wiring").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#step").text_content() == "step 20, epoch 2"
    assert "3 edges (and 1 that are never read), 0 new and 1 gone" in numbers(page)
    page.keyboard.press("Home")
    assert np.array_equal(picture(page), first)
    page.keyboard.press("Space")
    assert page.locator("#play").get_attribute("aria-label") == "Pause"
    page.wait_for_function("document.body.dataset.drawn === '2'")
    page.wait_for_function("document.getElementById('play').getAttribute('aria-label') === 'Play'")


@needs_browser
def test_pointing_at_a_node_and_filters(page):
    page.keyboard.press("ArrowRight")
    shown = page.locator("#shown")
    assert shown.text_content() == "4 edges shown"
    for _ in range(10):
        page.keyboard.press("-")
    assert shown.text_content() == "2 edges shown"
    for _ in range(10):
        page.keyboard.press("+")
    box = page.locator("#wiring").bounding_box()
    x, y = page.evaluate("[panel.places[0].x[2], panel.places[0].y[2]]")
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    assert page.locator("#tip").text_content() == "node 2: 1 edges in, 1 out"
    assert shown.text_content() == "2 edges shown"
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 3)
    assert shown.text_content() == "4 edges shown"
    page.locator("#accuracy").click(position={"x": 42, "y": 60})
    assert page.locator("#step").text_content() == "step 0, epoch 0"


@needs_browser
def test_light_and_dark(page):
    def paper():
        return picture(page)[0, 0].tolist()

    assert paper() == [255, 255, 255]
    page.get_by_role("button", name="light / dark").click()
    assert paper() == [0x14, 0x17, 0x1B]
    page.get_by_role("button", name="light / dark").click()
    assert paper() == [255, 255, 255]


@needs_browser
def test_the_picture_is_the_one_that_was_looked_at(page):
    """tests/fig/wiring.png was approved by eye; lines may fall a pixel beside."""
    page.locator("#slider").fill("1")
    found, expected = picture(page), np.array(Image.open(REFERENCE).convert("RGB")).astype(int)
    assert found.shape == expected.shape
    ink = (np.abs(expected - 255).max(axis=2) > 60).sum()
    assert ink > 1000
    assert (np.abs(found - expected).max(axis=2) > 60).sum() < 0.3 * ink
