"""Problems of an experiment, collected so that a user sees all of them at once, each with its origin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from genutil.exceptions import ConfigError

_LONGEST = 200
"""Characters of a value that a message shows."""


@dataclass(frozen=True)
class Problem:
    """One problem: its subject, what is wrong and how to fix it, and where it was written."""

    subject: str
    message: str
    origin: str = ""

    def __str__(self) -> str:
        where = f"  ({self.origin})" if self.origin else ""
        return f"{self.subject}: {self.message}{where}"


def shortened(value: object) -> str:
    """A value as a message shows it: a long one is cut."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no numbers of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def origin_of(keys: Iterable[str], origins: Mapping[str, str]) -> str:
    """Where the given keys were written, without repetition."""
    return ", ".join(dict.fromkeys(origins[key] for key in keys if key in origins))


def refuse(problems: Iterable[Problem]) -> None:
    """Raise one ConfigError that lists all problems, if there are any."""
    listed = list(dict.fromkeys(problems))
    if not listed:
        return
    head = "1 problem" if len(listed) == 1 else f"{len(listed)} problems"
    raise ConfigError("\n".join([f"{head} in this experiment:", *(f"  {problem}" for problem in listed)]))
