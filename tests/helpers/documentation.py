"""README and docs: the commands and examples in them."""

import re

from tests.conftest import ROOT

SPARSE = ROOT / "imagenet_sparsity_experiments"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), SPARSE / "README.md"]


def blocks(language):
    """All blocks of code in a language."""
    text = "\n".join(page.read_text() for page in PAGES)
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _commands():
    lines = [line.partition(" #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


COMMANDS = _commands()
RUNNER = [command for command in COMMANDS if command.startswith("python runner.py")]


def example_files():
    """{file name: text} of the code blocks that begin with their file's name."""
    files = {}
    for block in blocks("python") + blocks("yaml"):
        first = block.splitlines()[0].removeprefix("# ")
        if first.startswith("my_"):
            files[first] = block
    return files
