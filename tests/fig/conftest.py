"""Pages of recorded wirings."""

import pytest

from fig import wiring_page
from tests.fig.browser import opened
from tests.fig.wirings import LAYOUT, leave_record, state


@pytest.fixture
def leave_page(tmp_path):
    """Writes the page of a record."""

    def leave(layout, states, name="small<run>"):
        folder = leave_record(tmp_path / name, layout, states)
        assert wiring_page.main([str(folder)]) == 0
        return folder / "wiring.html"

    return leave


@pytest.fixture
def page(leave_page):
    """Steps 0, 10 and 40, at the first."""
    with opened(leave_page(LAYOUT, [state(0), state(10), state(20, 40)]), color_scheme="light") as page:
        page.keyboard.press("Home")
        yield page
