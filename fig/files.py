"""Files that the programs of this room read and write."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, TypeVar

from genutil.errors import UserError
from wirings.files import write_atomically

_log = logging.getLogger(__name__)


_Item = TypeVar("_Item")
_Content = TypeVar("_Content")


def read_each(items: Iterable[_Item], read: Callable[[_Item], _Content]) -> list[tuple[_Item, _Content]]:
    """Each item with what is read of it. One that cannot be read is left out with a warning.

    Raises:
        UserError: none can be read.
    """
    contents, problems = [], []
    for item in items:
        try:
            contents.append((item, read(item)))
        except UserError as error:
            problems.append(error)
    if problems and not contents:
        raise problems[0]
    for problem in problems:
        _log.warning("%s; it is left out", problem)
    return contents


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """`write_atomically` whose failures are errors for the user.

    Raises:
        UserError: it cannot be written.
    """
    try:
        write_atomically(path, write)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error}); choose another folder") from error


def write_text(path: Path, text: str) -> None:
    """Write a text.

    Raises:
        UserError: it cannot be written.
    """
    write_file(path, lambda file: file.write(text.encode()))
