"""Files that the programs of this room write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from genutil.exceptions import UserError
from wirings.files import write_atomically


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """`write_atomically`, with an error for the user where it fails.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        write_atomically(path, write)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error}); choose another folder") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file.

    Raises:
        UserError: the file cannot be written.
    """
    write_file(path, lambda file: file.write(text.encode()))
