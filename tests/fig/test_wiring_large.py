"""The page of a wiring in a browser: what it opens with, large layers, held nodes, and what is faded."""

import numpy as np
import pytest

from fig.drawing import drawn_edges
from fig.style import DEAD, NEGATIVE, NEW, POSITIVE
from genutil.runs.wiring_record import State
from tests.fig.browser import needs_browser, opened
from tests.fig.pages import at_step, colour_of, ink, picture, place, rgb, set_strength, shown
from tests.fig.wirings import CYCLIC, DEAD_NODE, LARGE, LAYOUT, WEAK, large_state, layer_state, state

pytestmark = [needs_browser, pytest.mark.slow]
ALL_COLOURS = (POSITIVE, NEGATIVE, NEW, DEAD)


@pytest.fixture
def large(leave_page):
    """5,000 edges at steps 0 and 1."""
    with opened(leave_page(LARGE, [large_state(0), large_state(1)]), color_scheme="light") as page:
        yield page


def edges_of(node):
    """(target, source) of the edges of a node at the last state of the large wiring."""
    codes, _ = drawn_edges(LARGE[0], large_state(1).layers["graph"])
    return [
        (t, s)
        for t, s in zip(*(part.tolist() for part in np.divmod(codes, 200)), strict=True)
        if node in (t, s)
    ]


def test_opens_at_the_last_state_with_the_edges_that_can_be_told_apart(large):
    assert at_step(large) == "step 1, epoch 1"
    assert large.locator("#slider").input_value() == large.locator("#slider").get_attribute("max") == "1"
    assert shown(large) == "1,500 of 5,000 edges shown"
    strongest = picture(large)
    large.keyboard.press("Home")
    assert shown(large) == "1,500 of 5,000 edges shown"
    large.keyboard.press("End")
    large.get_by_role("button", name="all edges").click()
    assert shown(large) == "5,000 of 5,000 edges shown"
    assert (picture(large) < 200).any(axis=2).sum() > 1.1 * (strongest < 200).any(axis=2).sum()
    large.keyboard.press("a")
    assert shown(large) == "1,500 of 5,000 edges shown"
    large.locator("#slider").blur()
    assert np.array_equal(picture(large), strongest)


def test_more_and_fewer_edges(large):
    found = []
    for key in ("+", "-", "-"):
        large.keyboard.press(key)
        found.append(int(shown(large).partition(" ")[0].replace(",", "")))
    assert found[0] > 1500 > found[2] > 0 and found[1] == pytest.approx(1500, rel=0.05)
    set_strength(large, 100)
    assert shown(large) == "5,000 of 5,000 edges shown"


def test_a_small_wiring_opens_with_all_edges(leave_page):
    with opened(leave_page(LAYOUT, [state(0), state(10)])) as page:
        assert (at_step(page), shown(page)) == ("step 10, epoch 1", "4 of 4 edges shown")
        assert page.locator("#all").is_hidden()
        page.keyboard.press("a")
        assert shown(page) == "4 of 4 edges shown"


def press(page, node):
    box, (x, y) = page.locator("#wiring").bounding_box(), place(page, node)
    page.mouse.move(box["x"] + x, box["y"] + y)
    page.mouse.down()


@pytest.mark.parametrize("how", ["press", "click", "keys"])
def test_a_node_shows_all_its_edges_also_the_weakest(large, how):
    edges = edges_of(WEAK)
    assert len(edges) > 20
    set_strength(large, 0)
    assert colour_of(ink(large, *edges[0])) is None
    if how == "keys":
        large.locator("#wiring").focus()
        large.evaluate("node => panel.pick(node)", WEAK - 1)
        large.keyboard.press("ArrowDown")
    else:
        press(large, WEAK)
    if how == "click":
        large.mouse.up()
        large.mouse.move(500, 5)
        assert large.locator("#tip").text_content().endswith("; held")
    assert shown(large) == f"{len(edges)} of 5,000 edges shown"
    large.add_style_tag(content="#tip { visibility: hidden }")
    drawn = picture(large)
    for target, source in edges:
        x, y = (0.6 * place(large, source) + 0.4 * place(large, target)).round().astype(int)
        lack = (255 - drawn[y - 1 : y + 2, x - 1 : x + 2]).sum(axis=(0, 1))
        # Those to the dead node are faded, but are there.
        assert lack.sum() > (60 if DEAD_NODE in (target, source) else 200), (target, source)


def test_a_held_node_keeps_its_edges_at_every_state(large):
    press(large, WEAK)
    large.mouse.up()
    large.locator("#slider").fill("0")
    codes, _ = drawn_edges(LARGE[0], large_state(0).layers["graph"])
    expected = ((codes % 200 == WEAK) | (codes // 200 == WEAK)).sum()
    assert shown(large) == f"{expected} of 5,000 edges shown"


def test_the_layer_with_most_edges_comes_first(leave_page):
    layouts = [{**LAYOUT[0], "name": name} for name in ("first", "second", "third")]
    layers = [state(step).layers["graph"] for step in (0, 10, 0)]
    one = State({"step": 0, "epoch": 0}, dict(zip(("first", "second", "third"), layers, strict=True)))
    with opened(leave_page(layouts, [one])) as page:
        assert page.locator("#layer").input_value() == "1"
        assert page.locator("#layer option:checked").text_content() == "second: 4 edges"
        assert shown(page) == "4 of 4 edges shown"
        page.locator("#layer").select_option("2")
        assert shown(page) == "3 of 3 edges shown"


def test_edges_from_and_to_dead_nodes_are_faded(leave_page):
    edges = layer_state([(2, 0), (5, 2), (7, 5), (6, 3), (4, 1)])
    edges.live[4] = edges.live[1] = False
    with opened(leave_page(LAYOUT, [State({"step": 0, "epoch": 0}, {"graph": edges})])) as page:
        found = {edge: colour_of(ink(page, *edge), ALL_COLOURS) for edge in ((2, 0), (6, 3), (4, 1))}
        assert found == {(2, 0): POSITIVE, (6, 3): DEAD, (4, 1): DEAD}
        page.evaluate("panel.hold(6)")
        assert colour_of(ink(page, 6, 3), ALL_COLOURS) == DEAD


def test_new_edges_of_dead_nodes_are_faded(leave_page):
    before, now = ([(2, 0), (5, 2), (7, 5)], [(2, 0), (5, 2), (7, 5), (6, 3)])
    states = [State({"step": n, "epoch": n}, {"graph": layer_state(e)}) for n, e in enumerate((before, now))]
    with opened(leave_page(LAYOUT, states)) as page:
        assert colour_of(ink(page, 6, 3), ALL_COLOURS) == DEAD


def test_edges_to_the_outputs_of_a_graph_with_cycles_are_not_faded(leave_page):
    """They are read although no edge leads on from them."""
    edges = layer_state([(3, 0), (7, 3)])
    with opened(leave_page(CYCLIC, [State({"step": 0, "epoch": 0}, {"graph": edges})])) as page:
        assert colour_of(ink(page, 7, 3), ALL_COLOURS) in (POSITIVE, NEGATIVE)


def test_the_keys_are_listed(large):
    keys = {key.text_content() for key in large.locator("#help kbd").all()}
    assert keys == {*"←→↑↓+−am", "Home", "End", "space", "Esc", "Tab", "Enter"}


SHARE = (0x0B, 0x6E, 0x63)


def cell_place(page, target, source):
    """The middle of the bin of an edge in the matrix, in pixels."""
    return page.evaluate(
        "([t, s]) => { const {rows, columns} = panel.matrix, middle = bin => (bin.from + bin.to) / 2;"
        " return [middle(columns.bins[columns.binOf[s]]), middle(rows.bins[rows.binOf[t]])]; }",
        [target, source],
    )


def cell_colour(page, target, source):
    x, y = cell_place(page, target, source)
    return picture(page)[int(y), int(x)].tolist()


def labels(page, id):
    return [(span.text_content(), span.bounding_box()) for span in page.locator(f"#{id} span").all()]


def test_the_matrix_shows_edges_in_place(leave_page):
    with opened(leave_page(LAYOUT, [state(0), state(10)]), color_scheme="light") as page:
        page.keyboard.press("m")
        for edge in ((2, 0), (5, 2), (9, 5)):
            assert cell_colour(page, *edge) == list(SHARE), edge
        assert cell_colour(page, 6, 3) == rgb(DEAD)  # node 6 is dead
        assert cell_colour(page, 2, 1) == [255, 255, 255]
        assert cell_colour(page, 3, 4) not in (list(SHARE), [255, 255, 255], rgb(DEAD))  # no edge can be
        page.keyboard.press("ArrowLeft")
        assert at_step(page) == "step 0, epoch 0"
        assert cell_colour(page, 5, 2) == [255, 255, 255]
        assert cell_colour(page, 2, 0) == rgb(DEAD)
        page.get_by_role("button", name="graph view").click()
        assert shown(page) == "3 of 3 edges shown"
        page.get_by_role("button", name="matrix view").click()
        page.locator("#fresh").wait_for(state="hidden")
        assert page.locator("#kind").is_visible()


def test_the_axes_of_the_matrix_are_labelled(leave_page):
    with opened(leave_page(LAYOUT, [state(10)])) as page:
        page.keyboard.press("m")
        stage = page.locator("#wiring").bounding_box()
        for id, axis, start, size, expected in (
            ("rows", "rows", "y", "height", ["group 1", "group 2", "outputs"]),
            ("columns", "columns", "x", "width", ["inputs", "group 1", "group 2"]),
        ):
            middles = page.evaluate(f"panel.matrix.{axis}.groups.map(g => [g.label, (g.from + g.to) / 2])")
            found = {text: box[start] + box[size] / 2 - stage[start] for text, box in labels(page, id)}
            assert found.keys() == {*expected}
            assert found == pytest.approx(dict(middles), abs=2)
        assert page.get_by_text("target nodes").is_visible()
        assert page.get_by_text("source nodes").is_visible()


def test_pointing_at_the_matrix_names_the_edge(leave_page):
    with opened(leave_page(LAYOUT, [state(10)])) as page:
        page.keyboard.press("m")
        box = page.locator("#wiring").bounding_box()

        def pointed(target, source):
            x, y = cell_place(page, target, source)
            page.mouse.move(box["x"] + x, box["y"] + y)
            return page.locator("#tip").text_content()

        assert pointed(5, 2) == "from node 2 (group 1) to node 5 (group 2): weight -0.5"
        assert pointed(6, 3) == "from node 3 (group 1) to node 6 (group 2): weight 0.75, of a dead node"
        assert pointed(9, 5) == "from node 5 (group 2) to output 1: weight -1"
        assert pointed(2, 1) == "from node 1 (inputs) to node 2 (group 1): no edge"
        assert pointed(3, 4) == "from node 4 (group 1) to node 3 (group 1): no edge is possible"
        page.mouse.move(500, 5)
        assert page.locator("#tip").is_hidden()


def test_bins_of_a_large_matrix(leave_page):
    """Where the picture has fewer pixels than nodes, a bin is of several, and says what is in it."""
    with opened(leave_page(LARGE, [large_state(0), large_state(1)]), width=390) as page:
        page.keyboard.press("m")
        bins = page.evaluate(
            "[panel.matrix.rows, panel.matrix.columns].map(axis => axis.bins.map(b => [b.start, b.end]))"
        )
        for parts, nodes in zip(bins, (range(40, 200), range(120)), strict=True):
            assert [node for start, end in parts for node in range(start, end)] == list(nodes)
            assert len(parts) < len(nodes)
        codes, weights = drawn_edges(LARGE[0], large_state(1).layers["graph"])
        targets, sources = np.divmod(codes, 200)
        page.locator("#wiring").focus()
        page.keyboard.press("ArrowDown")
        for _ in range(3):
            page.keyboard.press("ArrowDown")
            page.keyboard.press("ArrowRight")
        (top, bottom), (left, right) = bins[0][3], bins[1][3]
        inside = (targets >= top) & (targets < bottom) & (sources >= left) & (sources < right)
        pairs, weight = (bottom - top) * (right - left), np.abs(weights[inside]).sum()
        share, weight = (float(f"{value:.2g}") for value in (100 * inside.sum() / pairs, weight))
        assert page.locator("#tip").text_content() == (
            f"from nodes {left}–{right - 1} (inputs) to nodes {top}–{bottom - 1} (group 1): "
            f"{inside.sum()} of {pairs} pairs in use ({share:g} %), summed |weight| {weight:g}"
        )
        page.keyboard.press("Escape")
        assert page.locator("#tip").is_hidden()


@pytest.mark.parametrize("kind", ["share", "weight"])
def test_a_bin_is_the_darker_the_more_is_in_it(large, kind):
    large.keyboard.press("m")
    large.locator("#kind").select_option(kind)
    found = large.evaluate(
        """kind => { const m = panel.matrix, { counts, alive } = m.sums, found = [];
        m.rows.bins.forEach((row, r) => m.columns.bins.forEach((column, c) => {
          const bin = r * m.columns.bins.length + c;
          if (counts[bin] && alive[bin] === counts[bin])
            found.push([m.valueOf(m.sums, r, c, kind), row.from + 1, column.from + 1]);
        })); return found; }""",
        kind,
    )
    drawn = picture(large).sum(axis=2)
    lightness = np.array([drawn[y, x] for _, y, x in sorted(found)])
    assert len(found) > 1000 and len(np.unique(lightness)) >= 2
    assert np.all(np.diff(lightness) <= 0)


@pytest.mark.parametrize("width", [1200, 390])
def test_the_matrix_fits(width, leave_page):
    with opened(leave_page(LARGE, [large_state(1)], "n" * 100), width=width) as page:
        page.keyboard.press("m")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        boxes = [box for id in ("rows", "columns") for _, box in labels(page, id)]
        assert len(boxes) >= 4
        for number, one in enumerate(boxes):
            assert one["x"] >= 0 and one["x"] + one["width"] <= width
            for other in boxes[:number]:
                apart_x = one["x"] >= other["x"] + other["width"] or other["x"] >= one["x"] + one["width"]
                apart_y = one["y"] >= other["y"] + other["height"] or other["y"] >= one["y"] + one["height"]
                assert apart_x or apart_y
