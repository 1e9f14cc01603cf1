"""Text files that a user names: only regular files of limited size are read."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

_LIMIT = 64 * 1024**2


def read_text(path: Path, limit: int = _LIMIT) -> str:
    """The content of a UTF-8 text file.

    Args:
        path: the file; devices, pipes and folders are refused, since reading them may never end.
        limit: maximum size in bytes.

    Raises:
        OSError: there is no such file, it is not a regular file, or it cannot be read.
        ValueError: it is too large, or it is not UTF-8.
    """
    # A pipe without a writer would block without O_NONBLOCK; regular files ignore it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is not a regular file")
    with open(descriptor, "rb") as file:
        content = file.read(limit + 1)  # the kernel's virtual files have size 0
    if len(content) > limit:
        raise ValueError(f"it is larger than {_size(limit)}, the limit for such a file")
    return content.decode("utf-8")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError, ValueError: see read_text; ValueError also where it is not JSON or is nested too deeply.
    """
    return parse_json(read_text(path))


def parse_json(text: str) -> Any:
    """`json.loads`, which also raises ValueError for a text that is nested too deeply.

    Raises:
        ValueError: the text is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _size(limit: int) -> str:
    return f"{limit // 1024**2} MB" if limit >= 1024**2 else f"{limit // 1024} KB"
