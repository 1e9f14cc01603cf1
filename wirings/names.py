"""Hints for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 200
"""Characters of a word that are compared: difflib takes quadratic time."""


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """`; did you mean lr?` for the nearest known word, or nothing."""
    text = word[:_LONGEST] if isinstance(word, str) else ""
    near = difflib.get_close_matches(text, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
