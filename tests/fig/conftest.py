"""Pages of recorded wirings."""

import subprocess
from types import SimpleNamespace

import pytest

from fig import train_app, wiring_page
from tests.fig.browser import opened
from tests.fig.wirings import LAYOUT, leave_record, state
from tests.helpers.in_process import run_here


@pytest.fixture
def trains_in_this_process(monkeypatch):
    """Trainings that programs of fig start run here, without the seconds in which a process imports torch."""
    stand_in = SimpleNamespace(run=run_here, PIPE=subprocess.PIPE)
    monkeypatch.setattr(train_app, "subprocess", stand_in)


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
