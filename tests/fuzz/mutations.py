"""Changes of valid inputs, as plain values that a reproducer can hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

_SPECIAL = (
    b"\x00", b"\xff", b"\x7f", b"\x80", b"\x00" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80",
    b"\xff" * 8, b"PK\x03\x04", b"\x89PNG", b"-1", b"9" * 20, b"{", b"[", b"\n",
)  # fmt: skip
_PLACE = st.integers(0, 2**20)

Edit = tuple[Any, ...]


def byte_edits(most: int = 4) -> st.SearchStrategy[list[Edit]]:
    """Edits of a file's bytes; their places count modulo its size."""
    edit = st.one_of(
        st.tuples(st.just("flip"), _PLACE, st.integers(1, 255)),
        st.tuples(st.just("write"), _PLACE, st.one_of(st.sampled_from(_SPECIAL), st.binary(max_size=8))),
        st.tuples(st.just("insert"), _PLACE, st.one_of(st.sampled_from(_SPECIAL), st.binary(max_size=8))),
        st.tuples(st.just("delete"), _PLACE, st.integers(1, 64)),
        st.tuples(st.just("copy"), _PLACE, _PLACE, st.integers(1, 256)),
        st.tuples(st.just("cut"), _PLACE),
    )
    return st.lists(edit, min_size=1, max_size=most)


def edited(content: bytes, edits: Sequence[Edit]) -> bytes:
    """The bytes after `edits`."""
    data = bytearray(content)
    for kind, *values in edits:
        place = values[0] % (len(data) + 1)
        if kind == "flip" and place < len(data):
            data[place] ^= values[1]
        elif kind == "write":
            data[place : place + len(values[1])] = values[1]
        elif kind == "insert":
            data[place:place] = values[1]
        elif kind == "delete":
            del data[place : place + values[1]]
        elif kind == "copy":
            start = values[1] % (len(data) + 1)
            data[place:place] = data[start : start + values[2]]
        elif kind == "cut":
            del data[place:]
    return bytes(data)


ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 10**6, 2**31, 2**63, 2**64, -(2**63), 10**30, 0.5, -0.5, 1e308, "<nan>",
    "<inf>", "<-inf>", "", " ", "x", "1", "-1", "0.5", "none", "é漢🙂", "\u202e", "a/b", "../x", "\x1b[31m",
    "\x00", "<huge>", [], [0], [-1], [1, 2], [[1]], ["x"], {}, {"a": 1}, {"": None},
)  # fmt: skip
"""Values where others are expected; see `literal`."""


def odd_values() -> st.SearchStrategy[Any]:
    """Values of other types, signs and sizes."""
    return st.one_of(
        st.sampled_from(ODD_VALUES),
        st.integers(-(2**66), 2**66),
        st.text(max_size=8),
        st.recursive(st.sampled_from(ODD_VALUES), lambda inner: st.lists(inner, max_size=3), max_leaves=4),
    )


def literal(value: Any) -> Any:
    """A value of a case as it is meant: `<nan>` and the like stand for what has no literal."""
    names = {"<nan>": float("nan"), "<inf>": float("inf"), "<-inf>": float("-inf"), "<huge>": "x" * 10**6}
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, list):
        return [literal(item) for item in value]
    if isinstance(value, dict):
        return {key: literal(item) for key, item in value.items()}
    return value


def document_edits(most: int = 3) -> st.SearchStrategy[list[Edit]]:
    """Edits of nested mappings and lists: a path of choices, what is done there, and a value."""
    path = st.lists(st.integers(0, 63), min_size=1, max_size=5)
    action = st.sampled_from(("replace", "replace", "replace", "remove", "double", "rename"))
    return st.lists(st.tuples(path, action, odd_values()), min_size=1, max_size=most)


def edited_document(document: Any, edits: Sequence[Edit]) -> Any:
    """A copy of the document after `edits`."""
    document = json.loads(json.dumps(document))
    for path, action, value in edits:
        document = _edited_at(document, path, action, literal(value))
    return document


def _edited_at(node: Any, path: Sequence[int], action: str, value: Any) -> Any:
    if not path or not isinstance(node, (dict, list)) or not node:
        return value
    places = list(node) if isinstance(node, dict) else list(range(len(node)))
    place = places[path[0] % len(places)]
    if len(path) > 1 and isinstance(node[place], (dict, list)) and node[place]:
        node[place] = _edited_at(node[place], path[1:], action, value)
    elif action == "remove":
        del node[place]
    elif action == "double" and isinstance(node, list):
        node.insert(place, node[place])
    elif action == "rename" and isinstance(node, dict):
        node[str(value)[:50]] = node.pop(place)
    else:
        node[place] = value
    return node
