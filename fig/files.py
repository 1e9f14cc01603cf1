"""Files that the programs of this room write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from genutil.atomic import write_atomically
from genutil.errors import UserError


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """`write_atomically` whose failures are told to the user.

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
