"""The page of a wiring as a browser shows it, for tests: pixels and texts."""

import io

import numpy as np
from PIL import Image

from fig.style import NEGATIVE, NEW, POSITIVE


def picture(page, canvas="#wiring"):
    image = Image.open(io.BytesIO(page.locator(canvas).screenshot()))
    return np.array(image.convert("RGB")).astype(int)


def numbers(page):
    return page.locator("#numbers").text_content()


def shown(page):
    return page.locator("#shown").text_content()


def at_step(page):
    return page.locator("#step").text_content()


def place(page, node):
    """Of a node in the picture, in pixels."""
    return np.array(
        page.evaluate(
            "n => { const {x, y} = panel.places[0], {clientWidth: w, clientHeight: h} = panel.scene.canvas;"
            " return [x[n] * (w - 1), y[n] * (h - 1)]; }",
            node,
        )
    )


def ink(page, target, source, part=0.4):
    """How dark an edge is there: what three by three pixels lack of white, (red, green, blue)."""
    x, y = ((1 - part) * place(page, source) + part * place(page, target)).round().astype(int)
    return (255 - picture(page)[y - 1 : y + 2, x - 1 : x + 2]).sum(axis=(0, 1))


def colour_of(lack, names=(POSITIVE, NEGATIVE, NEW)):
    """Which of the style's colours has faded to this; None: white."""
    if np.sum(lack) < 30:
        return None
    known = {name: 255 - np.array(rgb(name)) for name in names}
    return max(known, key=lambda name: known[name] @ lack / np.linalg.norm(known[name]))


def rgb(name):
    return [int(name[n : n + 2], 16) for n in (1, 3, 5)]


def set_strength(page, part):
    page.locator("#strength").fill(str(part))
