"""Nothing that a file holds is ever executed: what ruff's rules S do not know."""

import ast

import pytest

from tests.conftest import ROOT

PROGRAMS = sorted(
    path for path in ROOT.rglob("*.py") if not {".venv", "tests"} & set(path.relative_to(ROOT).parts)
)


def calls(path, name):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
            yield node


def test_all_programs_are_looked_at():
    assert ROOT / "genutil" / "checkpoint" / "serialization.py" in PROGRAMS
    assert len(PROGRAMS) > 80


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_of_torch_are_read_as_weights_alone(path):
    for call in calls(path, "torch.load"):
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        value = given.get("weights_only")
        assert isinstance(value, ast.Constant) and value.value is True, f"{path}, line {call.lineno}"
    assert "weights_only=False" not in path.read_text()


def test_there_is_something_to_find():
    assert list(calls(ROOT / "wirings" / "weights_file.py", "torch.load"))
