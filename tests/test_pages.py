"""Pages of the repository: links, quoted messages, and the files for contributors and citations."""

import ast
import re

import pytest
import yaml

from tests.conftest import ROOT

SPARSE = ROOT / "imagenet_sparsity_experiments"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), SPARSE / "README.md"]
PROGRAM = ("wirings", "genutil", "data", "models", "trainers")


def without_code(page):
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """Anchors of the headings, as GitHub forms them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", without_code(page)):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_files_of_the_page_exist(name):
    for path in re.findall(r"`([a-z_]+(?:/[\w.]+)+)/?`", (ROOT / name).read_text()):
        assert (ROOT / path).exists(), path


def constant_texts(path):
    """Constant texts in a file of the program, those between the values of an f-string included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_messages_of_the_troubleshooting_table_are_those_of_the_program():
    table = (ROOT / "docs" / "running.md").read_text().partition("## Troubleshooting")[2]
    messages = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(messages) > 15
    files = [
        file for name in PROGRAM for file in [ROOT / name, *(ROOT / name).rglob("*.py")] if file.is_file()
    ]
    texts = [text for file in files for text in constant_texts(file)]
    for message in messages:
        pieces = re.split(r"[…;]|\d+|mine:Net|ValueError|\bdim\b|: ", message)
        for piece in filter(None, (piece.strip() for piece in pieces)):
            assert any(piece in text for text in texts), f"no message contains {piece!r}"


def project_value(key):
    (value,) = re.findall(rf'^{key} = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    return value


def test_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation.keys() >= {"cff-version", "message", "title", "authors", "license", "references"}
    assert citation["cff-version"] == "1.2.0"
    for key in ("version", "license"):
        assert str(citation[key]) == project_value(key)
    (paper,) = citation["references"]
    assert paper["type"] == "conference-paper"
    assert [author["family-names"] for author in paper["authors"]] == ["Wortsman", "Farhadi", "Rastegari"]
    assert paper["title"] in (ROOT / "README.md").read_text()


def test_changelog_has_the_next_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[(Unreleased|\d+\.\d+\.\d+)\]", text, re.MULTILINE)
    assert project_value("version") in text
