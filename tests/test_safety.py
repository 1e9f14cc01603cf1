"""Nothing that a file holds is ever executed: what ruff's rules S do not know."""

import ast

from tests.conftest import ROOT

PROGRAMS = sorted(
    path for path in ROOT.rglob("*.py") if not path.relative_to(ROOT).parts[0].startswith((".venv", "tests"))
)


def calls(path, name):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
            yield node


def is_safe(call):
    """Whether a call of torch.load reads weights alone."""
    arguments = {keyword.arg: keyword.value for keyword in call.keywords}
    value = arguments.get("weights_only")
    return isinstance(value, ast.Constant) and value.value is True


def test_all_programs_are_looked_at():
    assert ROOT / "genutil" / "checkpoint" / "serialization.py" in PROGRAMS
    assert len(PROGRAMS) > 80
    assert list(calls(ROOT / "wirings" / "weights_file.py", "torch.load"))  # there is something to find


def test_files_of_torch_are_read_as_weights_alone():
    unsafe = [
        f"{path.relative_to(ROOT)}, line {call.lineno}"
        for path in PROGRAMS
        if "torch" in path.read_text()
        for call in calls(path, "torch.load")
        if not is_safe(call)
    ]
    unsafe += [str(path) for path in PROGRAMS if "weights_only=False" in path.read_text()]
    assert not unsafe


def test_an_unsafe_call_is_noticed(tmp_path):
    (tmp_path / "x.py").write_text(
        "torch.load(a)\ntorch.load(a, weights_only=b)\ntorch.load(a, weights_only=True)\n"
    )
    assert [is_safe(call) for call in calls(tmp_path / "x.py", "torch.load")] == [False, False, True]
