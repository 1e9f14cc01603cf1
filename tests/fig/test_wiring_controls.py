"""The page of a wiring in a browser: what keys, pointer and controls do, and that it fits."""

import numpy as np
import pytest

from genutil.runs.wiring_record import State
from tests.fig.browser import needs_browser, opened
from tests.fig.pages import at_step, colour_of, ink, numbers, picture, place, shown
from tests.fig.wirings import LAYOUT, state

pytestmark = [needs_browser, pytest.mark.slow]


def test_slider_keys_and_play_change_picture_and_numbers(page):
    assert "3 edges, 0 new and 0 removed" in numbers(page)
    assert "training accuracy –, validation –" in numbers(page)
    first = picture(page)
    page.locator("#slider").fill("1")
    assert "4 edges, 2 new and 1 removed since the previous state; 4 of 8 nodes live" in numbers(page)
    assert "training accuracy 30.0 % (steps 1 to 10), validation 40.0 %" in numbers(page)
    assert at_step(page) == page.locator("#slider").get_attribute("aria-valuetext") == "step 10, epoch 1"
    assert (np.abs(picture(page) - first).max(axis=2) > 40).sum() > 100
    page.keyboard.press("ArrowRight")
    assert at_step(page) == page.locator("#slider").get_attribute("aria-valuetext") == "step 40, epoch 4"
    assert "3 edges (and 1 that are never read), 0 new and 1 removed" in numbers(page)
    page.keyboard.press("Home")
    page.locator("#slider").blur()
    assert np.array_equal(picture(page), first)
    page.keyboard.press("Space")
    assert page.locator("#play").get_attribute("aria-label") == "Pause"
    page.wait_for_function("document.body.dataset.drawn === '2'")
    page.wait_for_function("document.getElementById('play').getAttribute('aria-label') === 'Play'")


def hover(page, node):
    box, (x, y) = page.locator("#wiring").bounding_box(), place(page, node)
    page.mouse.move(box["x"] + x, box["y"] + y)


def test_pointing_at_a_node_and_filters(page):
    page.keyboard.press("ArrowRight")
    assert shown(page) == "4 of 4 edges shown"
    for _ in range(10):
        page.keyboard.press("-")
    assert shown(page) == "2 of 4 edges shown"
    assert colour_of(ink(page, 2, 0)) is None
    for _ in range(10):
        page.keyboard.press("+")
    hover(page, 2)
    assert page.locator("#tip").text_content() == "node 2: 1 edges in, 1 out"
    assert shown(page) == "2 of 4 edges shown"
    page.mouse.move(500, 5)
    assert shown(page) == "4 of 4 edges shown"
    assert page.locator("#tip").is_hidden()


def test_a_held_node_stays_whatever_is_pointed_at(page):
    page.keyboard.press("ArrowRight")
    tip = page.locator("#tip")
    hover(page, 5)
    page.mouse.down()
    page.mouse.up()
    hover(page, 3)
    assert tip.text_content() == "node 5: 1 edges in, 1 out; held"
    assert shown(page) == "2 of 4 edges shown"
    assert colour_of(ink(page, 6, 3)) is None
    page.keyboard.press("ArrowLeft")
    assert at_step(page) == "step 10, epoch 1"  # the picture has the focus: its neighbour is chosen
    assert tip.text_content() == "node 2: 1 edges in, 1 out"
    page.keyboard.press("Enter")
    page.mouse.move(500, 5)
    assert tip.text_content() == "node 2: 1 edges in, 1 out; held"
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    assert shown(page) == "4 of 4 edges shown"


def test_nodes_by_keys(page):
    page.locator("#wiring").focus()
    tip, found = page.locator("#tip"), []
    for key in ("Down", "Down", "Down", "Right", "Up", "Right", "Right", "Right", "Left"):
        page.keyboard.press(f"Arrow{key}")
        found.append(tip.text_content().partition(":")[0].removesuffix(", dead"))
    assert found == [
        "node 0",
        "node 1",
        "node 1",
        "node 4",
        "node 3",
        "node 6",
        "output 0",
        "output 0",
        "node 5",
    ]
    assert at_step(page) == "step 0, epoch 0"
    page.keyboard.press("End")
    assert at_step(page) == "step 40, epoch 4"
    page.locator("#slider").focus()
    assert tip.is_hidden()


def test_controls_keep_their_own_keys(page):
    playing = page.locator("#play")
    page.locator("#fresh").focus()
    page.keyboard.press("Space")
    assert not page.locator("#fresh").is_checked()
    assert playing.get_attribute("aria-label") == "Play"
    page.locator("#strength").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#strength").input_value() == "99"
    assert at_step(page) == "step 0, epoch 0"
    playing.focus()
    page.keyboard.press("Space")
    assert playing.get_attribute("aria-label") == "Pause"
    page.locator("#slider").focus()
    page.keyboard.press("ArrowLeft")  # at the first state the slider does not move
    assert playing.get_attribute("aria-label") == "Play"
    assert at_step(page) == "step 0, epoch 0"
    page.locator("#slider").blur()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    assert (playing.get_attribute("aria-label"), at_step(page)) == ("Play", "step 10, epoch 1")


@pytest.mark.parametrize("width", [1200, 390])
def test_long_names_fit(width, leave_page):
    layouts = [{**LAYOUT[0], "name": "a_layer_with_a_name." * 6}, {**LAYOUT[0], "name": "other"}]
    one = State({"step": 0, "epoch": 0}, {layout["name"]: state(0).layers["graph"] for layout in layouts})
    with opened(leave_page(layouts, [one], "n" * 200), width=width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_light_and_dark(page):
    def paper():
        return picture(page)[0, 0].tolist()

    assert paper() == [255, 255, 255]
    page.get_by_role("button", name="light / dark").click()
    assert paper() == [0x14, 0x17, 0x1B]
    page.get_by_role("button", name="light / dark").click()
    assert paper() == [255, 255, 255]
