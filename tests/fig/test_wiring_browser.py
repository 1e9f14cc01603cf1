"""The page of a wiring in a browser: what is drawn."""

import math

import numpy as np
import pytest
from PIL import Image

from fig.style import DEAD, INK, NEGATIVE, NEW, POSITIVE
from genutil.runs.wiring_record import LayerState, State
from tests.conftest import ROOT
from tests.fig.browser import needs_browser, opened
from tests.fig.pages import (
    at_step,
    colour_of,
    ink,
    picture,
    place,
    rgb,
    set_strength,
    shown,
)
from tests.fig.wirings import CYCLIC, LAYOUT, layer_state, state

REFERENCE = ROOT / "tests" / "fig" / "wiring.png"
pytestmark = [needs_browser, pytest.mark.slow]


def test_edges_have_the_colour_of_their_sign_and_new_ones_their_own(page):
    page.keyboard.press("ArrowRight")
    colours = {(2, 0): POSITIVE, (5, 2): NEW, (9, 5): NEW}
    assert {edge: colour_of(ink(page, *edge)) for edge in colours} == colours
    page.locator("#fresh").uncheck()
    colours |= {(5, 2): NEGATIVE, (9, 5): NEGATIVE}
    assert {edge: colour_of(ink(page, *edge)) for edge in colours} == colours
    assert ink(page, 9, 5).sum() > 1.5 * ink(page, 2, 0).sum()  # weights −1 and 0.25


def test_live_and_dead_nodes(page):
    page.keyboard.press("ArrowRight")
    drawn = picture(page)
    for node in range(10):
        x, y = place(page, node).round().astype(int)
        expected = INK if node in (0, 2, 3, 5, 8, 9) else DEAD
        assert drawn[y, x].tolist() == rgb(expected), node


def test_the_strongest_part_is_exact_whatever_the_weights_are(leave_page):
    random = np.random.default_rng(0)
    layout = [
        {
            **LAYOUT[0], "targets": 90, "sources": 90, "outputs": None,
            "columns": [
                {"sources": [0, 30], "targets": None}, {"sources": [30, 90], "targets": [30, 90]},
            ],
        }
    ]  # fmt: skip
    rows, columns = np.divmod(np.sort(random.choice(60 * 30, 290, replace=False)), 30)
    places, live = (rows + 30) * 90 + columns, np.ones(90, bool)
    weights = np.exp(4 * random.standard_normal(290)).astype(np.float32)
    weights[::10] = 1  # as strong as each other
    states = [State({"step": 0, "epoch": 0}, {"graph": LayerState(places, weights, live)})]
    assert weights.max() > 1000 * np.median(weights)
    with opened(leave_page(layout, states)) as page:
        for part in (1, 5, 25, 33, 50, 55, 75, 99, 100):
            set_strength(page, part)
            assert shown(page) == f"{math.ceil(290 * part / 100)} of 290 edges shown"
        set_strength(page, 0)
        assert shown(page) == "0 of 290 edges shown"


def test_the_strongest_are_shown_to_the_last_digit_of_the_record(leave_page):
    edges = layer_state([(2, 0), (5, 2), (7, 5), (5, 3)], [0.1, 0.101, 1000, -0.2])
    with opened(leave_page(LAYOUT, [State({"step": 0, "epoch": 0}, {"graph": edges})])) as page:
        set_strength(page, 75)
        assert colour_of(ink(page, 2, 0)) is None
        assert colour_of(ink(page, 5, 2)) == POSITIVE
        set_strength(page, 50)
        assert colour_of(ink(page, 5, 2)) is None
        assert colour_of(ink(page, 5, 3)) == NEGATIVE


def test_edges_within_a_column_and_from_a_node_to_itself(leave_page):
    """Nodes 2 to 5 are a column, from the top: an edge down, one up, and one from the last to itself."""
    edges = layer_state([(3, 2), (2, 4), (5, 5), (7, 1)], [1, 1, 1, 1])
    with opened(leave_page(CYCLIC, [State({"step": 0, "epoch": 0}, {"graph": edges})])) as page:
        drawn = 255 - picture(page)
        (x, y2), (_, y3), (_, y4), (_, y5) = (place(page, node).round().astype(int) for node in (2, 3, 4, 5))
        above, below = (drawn[slice(*sorted(ends))].sum(axis=(0, 2)) for ends in ((y2 + 8, y3 - 8), (y3, y4)))
        assert above[x + 10 : x + 80].sum() > 1000 < above[x - 130 : x - 10].sum()
        assert below[x + 10 : x + 80].sum() == 0
        assert drawn[y5 - 2 : y5 + 3, x + 9 : x + 12].sum() > 300
        assert drawn[y5 - 2 : y5 + 3, x - 12 : x - 8].sum() == 0
        assert colour_of(ink(page, 7, 1)) == POSITIVE


def charted(page, chart, step, part, beside=0):
    """The colour of a chart at a step and at this part of its height."""
    x, y = page.evaluate("([c, s, p]) => [panel.charts[c].x(s), panel.charts[c].y(p)]", [chart, step, part])
    found = picture(page, f"#{chart}")
    assert found.shape[1] == page.evaluate("c => document.getElementById(c).clientWidth", chart)
    return colour_of(255 - found[int(y), int(x) + beside], (POSITIVE, NEGATIVE, NEW, INK))


def test_charts_tell_accuracies_live_nodes_and_new_edges_by_step(page):
    page.keyboard.press("End")
    box = page.evaluate(
        "(({left, right, x}) => [left, x(0), x(10), x(20), x(40), right])(panel.charts.accuracy)"
    )
    assert box == sorted(box)
    assert box[2] - box[1] == pytest.approx((box[4] - box[1]) / 4)
    for shown_state, step, train, val in ((1, 40, 40, 50), (2, 10, 30, 40)):  # where the cursor is not
        page.locator("#slider").fill(str(shown_state))
        assert charted(page, "accuracy", step, train / 100) == POSITIVE
        assert charted(page, "accuracy", step, val / 100) == NEGATIVE
    assert charted(page, "alive", 10, 0.5) == NEW  # 2 new edges of 2 at the most
    assert charted(page, "alive", 10, 0.99) == INK  # 4 live nodes of 4
    assert charted(page, "alive", 40, 0.02, -3) is None  # no new edge
    assert page.evaluate("[panel.charts.mostLive, panel.charts.mostFresh]") == [4, 2]
    assert charted(page, "accuracy", 40, 0.9) == INK  # the cursor
    page.keyboard.press("ArrowLeft")
    assert charted(page, "accuracy", 10, 0.9) == INK
    assert charted(page, "accuracy", 40, 0.9) is None
    for step, expected_step in ((33, "step 40, epoch 4"), (8, "step 10, epoch 1")):
        x = page.evaluate("s => panel.charts.alive.x(s)", step)
        page.locator("#alive").click(position={"x": x, "y": 60})
        assert at_step(page) == expected_step


def test_all_bars_lie_in_the_frame(leave_page):
    states = [state(10 * (n % 2), 10 * n) for n in range(4)]
    with opened(leave_page(LAYOUT, states), color_scheme="light") as page:
        box = page.evaluate("(({left, right}) => [left, right])(panel.charts.alive)")
        found = picture(page, "#alive")
        purple = np.argwhere((found[:120] == rgb(NEW)).all(axis=2))[:, 1]
        assert box[0] <= purple.min()
        assert set(range(int(box[1]) - 8, int(box[1]) - 3)) & {*purple}
        assert not set(range(int(box[1]), int(box[1]) + 4)) & {*purple}


def test_the_picture_is_the_one_that_was_looked_at(page):
    """tests/fig/wiring.png was approved by eye; lines may fall a pixel beside."""
    page.locator("#slider").fill("1")
    found, expected = picture(page), np.array(Image.open(REFERENCE).convert("RGB")).astype(int)
    assert found.shape == expected.shape
    drawn = (np.abs(expected - 255).max(axis=2) > 60).sum()
    assert drawn > 1000
    assert (np.abs(found - expected).max(axis=2) > 60).sum() < 0.3 * drawn
