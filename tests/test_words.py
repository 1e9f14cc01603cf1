"""Plain words: expressions of a private dialect do not appear in the program or in the docs."""

import re

import pytest

from tests.conftest import ROOT

WORDS = (
    "told", "tells? (?:of|the|whether|which|how)", "heeds?", "heeded", "mends?", "anew", "whoever",
    "whatever", "hangs? on", "hung on", "(?:goes|went|going|gone) on (?:from|with)", "settles?", "settled",
    "in vain", "so many", "at the most", "in turn", "beside", "theirs", "speaks", "looked at",
    "by the words", "handed on",
)  # fmt: skip
"""Regular expressions of words, in lower case. Names are split into words: `_told_at` is "told at"."""
PATTERN = re.compile(rf"\b(?:{'|'.join(WORDS)})\b")
SUFFIXES = {".py", ".md", ".ipynb", ".js", ".html", ".css", ".cpp", ".h", ".sh", ".yml", ".toml", ".slurm"}
ROOMS = (
    "wirings", "models", "fig", "benchmarks", "genutil", "data", "trainers", "imagenet_sparsity_experiments",
    "docs", "apps", ".",
)  # fmt: skip


def words_of(text):
    """Text in lower case, with names split at underscores and capitals."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", text).lower()


def offenders(room):
    """{file: its expressions} of a room; of ".": the files beside the rooms."""
    folder = ROOT / room
    paths = folder.glob("*") if room == "." else folder.rglob("*")
    found = {
        str(path.relative_to(ROOT)): PATTERN.findall(words_of(path.read_text(encoding="utf-8")))
        for path in sorted(paths)
        if path.suffix in SUFFIXES and path.is_file()
    }
    return {file: words for file, words in found.items() if words}


@pytest.mark.parametrize("room", ROOMS)
def test_plain_words(room):
    assert offenders(room) == {}


def test_words_in_names_are_seen():
    for text in ("def _told_at(x):", "class ToldByAnother:", "# it hangs on the rest", "`begun_anew`"):
        assert PATTERN.search(words_of(text)), text
    for text in ("recommend", "amended", "untold_", "turn", "sobeside"):
        assert not PATTERN.search(words_of(text)), text
