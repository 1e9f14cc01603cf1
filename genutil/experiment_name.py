"""Names of experiments: any printable text, and its form as the name of a folder."""

from __future__ import annotations

import hashlib
import re
import unicodedata

MAX_LENGTH = 100
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*")


def checked_name(name: str) -> str:
    """The name in Unicode's composed form (NFC), so that `é` is one name however it was typed.

    Raises:
        ValueError: it is empty, too long, not printable, or contains a slash.
    """
    name = unicodedata.normalize("NFC", name)
    if not name.strip(" ."):
        raise ValueError("must not be empty or only dots; give the experiment a --name")
    if len(name) > MAX_LENGTH:
        raise ValueError(
            f"has {len(name)} characters, at most {MAX_LENGTH} are allowed; give the experiment a --name"
        )
    if "/" in name or "\\" in name or not name.isprintable():
        raise ValueError(
            "must be printable text without / and \\ (the folders are chosen by save_dir and log_dir); "
            "give the experiment another --name"
        )
    return name


def folder_name(name: str) -> str:
    """Folder name of an experiment: ASCII letters, digits and `_.+=-`, at most 100 characters.

    If characters were replaced, a checksum of the name is added, so that two names never share a folder.
    """
    if _SAFE.fullmatch(name) and len(name) <= MAX_LENGTH:
        return name
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_.+=-]+", "_", plain).strip("_.+=-")
    checksum = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{plain[: MAX_LENGTH - 1 - len(checksum)] or 'experiment'}-{checksum}"
