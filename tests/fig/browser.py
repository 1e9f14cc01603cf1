"""A headless Chromium for tests of pages."""

from contextlib import contextmanager

import pytest

from benchmarks.browser import CHROMIUM, new_tab

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")


@contextmanager
def opened(path, width=1000, height=900, **settings):
    """A page of the browser with this file in it; whatever the page complains about is an error."""
    complaints = []
    with new_tab(width, height, **settings) as page:
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith("http") and complaints.append(request.url))
        page.goto(path.resolve().as_uri())
        page.wait_for_function("window.panel !== undefined || !document.getElementById('failure').hidden")
        yield page
    assert complaints == []
