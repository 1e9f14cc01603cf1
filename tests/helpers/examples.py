"""Numbers of examples that hypothesis tries: few in `make test`, all in `make test-all`."""

from __future__ import annotations

from typing import Any

from hypothesis import settings


def examples(count: int, **options: Any) -> settings:
    """A decorator: `count` examples with the profile `ci`, at most those of the profile with any other.

    Args:
        count: examples that the test is worth.
        options: further settings of hypothesis.
    """
    profile = settings.default
    assert profile is not None
    if profile != settings.get_profile("ci"):
        count = min(count, profile.max_examples)
    return settings(max_examples=count, **options)
