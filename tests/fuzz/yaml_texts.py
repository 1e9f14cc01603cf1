"""Experiment files: tags, aliases, depth, odd keys and values, bases, other encodings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from genutil.config import load_config, to_yaml
from tests.conftest import TINY
from tests.fuzz.command_lines import keys
from tests.fuzz.guard import EXECUTED
from tests.fuzz.mutations import byte_edits, edited

_CALL = f'__import__("sys").audit("{EXECUTED}")'
_VALUES = (
    f"!!python/object/apply:eval ['{_CALL}']", f"!!python/object/apply:os.system ['{_CALL}']",
    f"!!python/object/new:eval ['{_CALL}']", "!!python/name:os.system", "!!python/module:os",
    "!!python/object:os.system {}", "!!python/tuple [1, 2]", "!!binary aGk=", "!!binary '%%%'",
    "!!set {a, b}",
    "!!omap [a: 1, b: 2]", "!!pairs [a: 1]", "!!omap 1", "!!set [1]", "!!timestamp 2026-99-99",
    "2026-99-99",
    "2026-01-01", "2026-01-01T25:61:61Z", "0001-01-01T00:00:00+99:99", "!!int x", "!!float x", "!!bool x",
    "!!null x", "!!int ''", "!!float ''", "!!int [1]", "!!str {}", "!!map x", "!!seq x", "!x y",
    "!<tag:x> y",
    "&a [*a]", "&a {a: *a}", "*missing", "&a 1", "[&b 1, *b]", "1:2:3", "190:20:30.15", "-1:-1", "0x", "0b",
    "0o17", "017", "08", "1_000", "_1", "1e999", "-1e999", ".inf", "-.inf", ".nan", ".", "~", "''",
    '"', "'",
    '"\\x00"', '"\\ud800"', '"\\u202e"', "|\n  text", ">\n  text", "|9\n  x", "{", "[", "}", "]",
    "{a: b", "[a",
    "? a", "- a", ": a", "a: b: c", "%", "@", "`", "#", "...", "---", "\t1", "{? [1]: 2}", "{{a: 1}: 2}",
    "[[]]", "[null]", "{1: 2}", "{true: 1}", "{.nan: 1}", "{null: null}", "yes", "No", "on", "1.",
    "+1", "-",
    "+.5", "9" * 400, "-1", "0", "1", "0.5", "8", "dnw", "td", "[1, 5]", "[5, 1]", "os:system",
    "a:b", "{a: 1}",
    "x" * 3000, "é漢🙂",
)  # fmt: skip
_LINES = (
    "<<: {lr: 1}", "<<: [{lr: 1}, {lr: 2}]", "<<: 1", "<<: [1]", "<<: *m", "m: &m {lr: 1}", "? [a]\n: b",
    "? {a: b}\n: c", "? &k lr\n: 1", "? !!binary aGk=\n: 1", "1: 2", "null: 1", "~: 1", "true: 1", "1.5: 1",
    ".nan: 1", "2026-01-01: 1", "'': 1", "' ': 1", "'_base_ ': x", "=: 1", "!!str lr: 1", "- a",
    "a", "--- ",
    "...", "%YAML 9.9", "%YAML 1.1", "%TAG ! x", "\tlr: 1", "  lr: 1", "lr:1", "lr : 1",
    "lr: 1 # c", "\ufeff",
    "\x85", "\u2028lr: 1", "{lr: 1}", "[lr, 1]", "lr: 1\rseed: 2", "lr: 1\r\nseed: 2", "&a lr: 1", "*a : 1",
    "é: 1", "\U0001f642: 1", "prune: 1", "val_resize: 2", "model_args: {a: [1, {b: null}]}", "data_args: 1",
)  # fmt: skip
_BASES = (
    "b.yml", "a.yml", "./a.yml", "[b.yml]", "[b.yml, b.yml]", "[b.yml, a.yml]", "missing.yml", ".",
    "..", "/",
    "''", "null", "1", "{a: b}", "[1]", "[[b.yml]]", "/dev/null", "'b.yml\\0'", '"\\0"', '"b.yml\\u0000"',
    "é.yml", "~", "b.yml/", "b.yml/c.yml", "x" * 300, "link.yml", "fifo.yml", "/dev/zero", "locked/x.yml",
)  # fmt: skip
_DEPTHS = (10, 300, 2000)


def _nested(depth: int, form: str) -> str:
    opening = {"list": "[", "map": "{a: ", "block": "- ", "tags": "!x "}[form]
    closing = {"list": "]", "map": "}", "block": "", "tags": ""}[form]
    return opening * depth + "x" + closing * depth


def _laughs(levels: int, width: int) -> str:
    lines = ["l0: &l0 [x, x]"]
    for level in range(1, levels):
        lines.append(f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * width)}]")
    return "\n".join([*lines, f"model_args: {{a: *l{levels - 1}}}"])


def lines() -> st.SearchStrategy[str]:
    """One or several lines of an experiment file."""
    pair = st.builds(lambda key, value: f"{key}: {value}", keys(), st.sampled_from(_VALUES))
    return st.one_of(
        pair, pair, pair,
        st.sampled_from(_LINES),
        st.sampled_from(_BASES).map(lambda base: f"_base_: {base}"),
        st.builds(
            lambda key, depth, form: f"{key}: {_nested(depth, form)}",
            keys(), st.sampled_from(_DEPTHS), st.sampled_from(["list", "map", "block", "tags"]),
        ),
        st.builds(_laughs, st.integers(2, 12), st.integers(2, 9)),
        st.text(max_size=20),
    )  # fmt: skip


def files() -> st.SearchStrategy[Any]:
    """(lines, edits of the bytes, encoding) of a file."""
    encodings = st.sampled_from(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-32", "latin-1"])
    return st.tuples(
        st.lists(st.tuples(st.integers(0, 20), lines()), max_size=4),
        st.one_of(st.just([]), byte_edits(2)),
        encodings,
    )


class YamlTexts:
    """`load_config`."""

    in_child = False

    def __init__(self, folder: Path) -> None:
        self.valid = yaml.safe_dump(TINY).splitlines()

    def cases(self) -> st.SearchStrategy[Any]:
        return st.tuples(files(), st.one_of(st.none(), files()), st.booleans())

    def run(self, case: Any, folder: Path) -> None:
        first, second, refers = case
        start = ["_base_: b.yml"] if refers else []
        (folder / "a.yml").write_bytes(self._content([*start, *self.valid], first))
        if second is not None:
            (folder / "b.yml").write_bytes(self._content(self.valid, second))
        os.symlink("link.yml", folder / "link.yml")  # to itself
        os.mkfifo(folder / "fifo.yml")
        (folder / "locked").mkdir(mode=0)
        os.environ.pop("DATA_DIR", None)
        config = load_config(folder / "a.yml")
        again = folder / "again.yml"
        again.write_text(to_yaml(config), encoding="utf-8")
        assert load_config(again).model_dump() == config.model_dump(), (
            "the printed experiment loads as another one"
        )

    @staticmethod
    def _content(valid: list[str], file: Any) -> bytes:
        more, edits, encoding = file
        text = list(valid)
        for place, line in more:
            text.insert(place % (len(text) + 1), line)
        return edited(("\n".join(text) + "\n").encode(encoding, errors="replace"), edits)
