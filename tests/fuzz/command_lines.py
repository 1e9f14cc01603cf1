"""Command lines: valid ones with values and options that are wrong, doubled, huge, or of other letters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from genutil.config import load_config, to_yaml
from genutil.config.command_line import parse_command_line
from genutil.config.schema import ALIASES, NEVER_READ, schema
from tests.conftest import TINY

APP = "<app>"
"""Stands for the path of the experiment file."""
_VALUES = (
    "0", "1", "-1", "2", "10", "0.5", "-0.5", "1e-3", "5e-5", "-1e3", "1e400", "-1e400", "nan",
    "inf", "-inf",
    "1_000", "0x10", "0b1", "1e3", "١٢", "１２", "𝟙", "½", "+1", " 1", "1 ", "1.0", "1,2", "9" * 400,
    "-" * 300,
    str(2**31), str(2**63), str(2**64), "true", "false", "yes", "no", "on", "None", "none", "null", "~", "",
    " ", "\t", "\n", "é", "漢字", "🙂", "\u202e", "\udcff", "\x1b[2J", "a" * 5000, "a=b", "=", "a=", "=b",
    "a=b=c", "{seed}", "{}", "%s", "%", "%(default)s", "$HOME", "~/x", "/", ".", "..", "/dev/null", "/proc",
    "dnw", "td", "gamma", "static", "continuous", "cosine", "sgd", "os:system", "a:b", "a.b:c", ":", "a:",
    ":b", "tests.tiny_data:TinyData", "models.graphs.neuralgraph:StaticNeuralGraph", "auto", "last.pt",
    "out.onnx", "out.safetensors", "x.yml", "--", "-", "-x", "--lr", "app:", "app:x.yml", "[1, 2]",
    "!!int 1",
)  # fmt: skip
_KEYS = tuple([*schema(), *ALIASES, *NEVER_READ])


def keys() -> st.SearchStrategy[str]:
    """Keys, most of them known."""
    changed = st.builds(
        lambda key, place, letter: key[: place % len(key)] + letter + key[place % len(key) + 1 :],
        st.sampled_from(_KEYS), st.integers(0, 40), st.sampled_from(["", "_", "-", "x", "é", "="]),
    )  # fmt: skip
    known = st.sampled_from(_KEYS)
    return st.one_of(known, known, known, known.map(lambda key: key.replace("_", "-")), changed)


def values() -> st.SearchStrategy[str]:
    """Words as a shell hands them on: any text without the character 0."""
    text = st.text(st.characters(exclude_characters="\0"), max_size=12)
    number = st.one_of(st.integers(-(2**70), 2**70).map(str), st.floats().map(repr))
    return st.one_of(st.sampled_from(_VALUES), st.sampled_from(_VALUES), number, text)


def options() -> st.SearchStrategy[list[str]]:
    """One option in one of its forms."""
    return st.one_of(
        st.builds(lambda key, value: [f"--{key}", value], keys(), values()),
        st.builds(lambda key, value: [f"--{key}={value}"], keys(), values()),
        st.builds(lambda key, given: [f"--{key}", *given], keys(), st.lists(values(), max_size=3)),
        st.builds(lambda key: [f"--no-{key}"], keys()),
        st.builds(lambda key: [f"--no{key}"], keys()),
        st.builds(lambda key, value: [f"-{key}", value], keys(), values()),
        st.lists(values(), min_size=1, max_size=1),
        st.sampled_from([["--print_config"], ["--help"], ["-h"], [APP], ["--"], ["---"], ["--=1"]]),
    )


class CommandLines:
    """What `runner.py` does before it imports torch."""

    in_child = False

    def __init__(self, folder: Path) -> None:
        self.app = folder / "tiny.yml"
        self.app.write_text(yaml.safe_dump(TINY))

    def cases(self) -> st.SearchStrategy[Any]:
        app = st.sampled_from([[f"app:{APP}"]] * 8 + [[APP], [], [f"app:{APP}", f"app:{APP}"], ["app:"]])
        return st.builds(
            lambda first, rest: [*first, *(word for option in rest for word in option)],
            app,
            st.lists(options(), max_size=5),
        )

    def run(self, case: Any, folder: Path) -> None:
        words = [word.replace(APP, str(self.app)) for word in case]
        os.environ.pop("DATA_DIR", None)
        try:
            config = parse_command_line(words).config
        except SystemExit as ended:  # of --help and of argparse
            if ended.code not in (0, 2):
                raise
            return
        again = folder / "again.yml"
        again.write_text(to_yaml(config), encoding="utf-8")
        assert load_config(again).model_dump() == config.model_dump(), (
            "the printed experiment loads as another one"
        )
