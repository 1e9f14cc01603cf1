"""docs/architecture.md: its diagram agrees with the imports of the program."""

import ast
import re

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()


def diagram():
    """{(importing, imported)} of the solid arrows."""
    (chart,) = re.findall(r"^```mermaid\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return set(re.findall(r"^ +(\w+)(?:\[.*?\])? --> (\w+)", chart, re.MULTILINE))


def imported_names(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def imports(folders):
    """{(importing, imported)} of the program's folders and files, imports inside functions included."""
    pairs = set()
    for folder in folders:
        single = ROOT / f"{folder}.py"
        for path in [single] if single.exists() else (ROOT / folder).rglob("*.py"):
            pairs |= {(folder, name.partition(".")[0]) for name in imported_names(path)}
    return {(source, target) for source, target in pairs if target in folders and source != target}


def closure(pairs):
    """All pairs that are connected by one or more arrows."""
    reached = set(pairs)
    while further := {(a, d) for a, b in reached for c, d in pairs if b == c} - reached:
        reached |= further
    return reached


def test_diagram_shows_the_imports():
    shown = diagram()
    folders = {name for pair in shown for name in pair}
    assert {"wirings", "genutil", "data", "models", "trainers", "fig", "experiment", "runner"} < folders
    actual = imports(folders)
    assert closure(shown) == closure(actual)
    assert shown <= actual, "an arrow without an import"


def test_no_folder_imports_itself_by_others():
    assert not [source for source, target in closure(diagram()) if source == target]


def test_contracts_name_the_folders_of_the_diagram():
    folders = {name for pair in diagram() for name in pair} - {"construction", "experiment", "runner"}
    (listed,) = re.findall(r"^root_packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert folders == set(re.findall(r'"(\w+)"', listed))
