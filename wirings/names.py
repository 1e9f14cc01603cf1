"""Names: suggestions for misspelt ones, and import of `module:Name`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

from wirings.errors import UnknownNameError

_MAX_LENGTH = 200
"""Characters of a word that are compared: difflib takes quadratic time."""


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """`; did you mean lr?` for the nearest known word, or nothing."""
    text = word[:_MAX_LENGTH] if isinstance(word, str) else ""
    matches = difflib.get_close_matches(text, list(known), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]}?" if matches else ""


def import_object(path: str) -> Any:
    """The object at `module:Name`.

    Raises:
        UnknownNameError: the text has another form, or there is no such module, or no such name in it.
        Exception: raised by the module during the import.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise UnknownNameError(f"{path or 'an empty name'} has not the form module:name")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UnknownNameError(f"{path} needs the package {error.name}; install it") from error
        raise UnknownNameError(
            f"there is no module {error.name}; it must be importable from the current folder"
        ) from error
    if not hasattr(module, name):
        hint = did_you_mean(name, [known for known in vars(module) if not known.startswith("_")])
        raise UnknownNameError(f"module {module_name} has no {name}{hint}")
    return getattr(module, name)
