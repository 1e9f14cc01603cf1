"""The GPU program: its parts, what it does about failures and about what is missing; all of it on the CPU."""

import json
import sys

import pytest

from benchmarks import gpu
from tests.conftest import ROOT


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the program with the given Python code in place of each part; gives its status and JSON."""
    monkeypatch.setattr(gpu, "describe_machine", lambda device: {"processor": "one", "card": "none"})
    monkeypatch.setattr(gpu, "GRACE", 0.2)

    def program(code, *argv):
        monkeypatch.setattr(gpu, "_command", lambda name, *_: [sys.executable, "-c", code[name]])
        where = ["--json", str(tmp_path / "gpu.json"), "--page", str(tmp_path / "gpu.md")]
        status = gpu.main(["--device", "cpu", "--only", *code, *where, *argv])
        return status, json.loads((tmp_path / "gpu.json").read_text()), (tmp_path / "gpu.md").read_text()

    return program


def emitting(table, **row):
    return f"import json; print(json.dumps({ {'table': table, **row} }))"


def test_a_part_that_fails_does_not_stop_the_next(run):
    code = {"steps": "print('about to fail'); raise SystemExit(3)", "selection": emitting("s", ms=1.5)}
    status, found, page = run(code)
    assert status == 1
    assert found["parts"]["steps"]["status"] == "failed"
    assert found["parts"]["steps"]["notes"] == ["about to fail"]
    assert found["parts"]["selection"]["rows"] == [{"table": "s", "ms": 1.5}]
    assert "failed" in page
    assert "| 1.5 |" in page
    assert "- card: none" in page


def test_a_part_that_hangs_is_ended_and_its_results_stay(run):
    code = {
        "steps": emitting("s", ms=2) + "\nimport sys, time; sys.stdout.flush(); time.sleep(600)",
        "training": emitting("t", accuracy=80.25),
    }
    status, found, _ = run(code, "--minutes", "0.1")
    assert status == 1
    assert found["parts"]["steps"]["status"] == "out of time"
    assert found["parts"]["steps"]["rows"] == [{"table": "s", "ms": 2}]
    assert found["parts"]["training"]["status"] == "done"


def test_outcomes_of_tests_are_counted_once(run):
    lines = [
        "tests/gpu/test_a.py::test_one[x] PASSED   [ 50%]",
        "[gw1] [ 60%] FAILED tests/gpu/test_a.py::test_two",
        "FAILED tests/gpu/test_a.py::test_two - assert",
        "tests/gpu/test_a.py::test_three SKIPPED (needs) [ 90%]",
    ]
    status, found, page = run({"tests": f"print({chr(10).join(lines)!r}); raise SystemExit(1)"})
    assert status == 1
    assert [row["outcome"] for row in found["parts"]["tests"]["rows"]] == ["passed", "failed", "skipped"]
    assert "1 passed, 1 failed, 1 skipped." in page
    assert "- failed: `tests/gpu/test_a.py::test_two`" in page


def test_all_parts_that_run_are_a_success(run):
    status, _, page = run({"steps": emitting("s", network="dnw", kernels=1234, waits=None)})
    assert status == 0
    assert "| dnw | 1,234 |  |" in page


def test_missing_packages_are_named(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "_is_installed", lambda module: module not in ("pydantic", "yaml"))
    assert gpu.main(["--device", "cpu"]) == 2
    message = capsys.readouterr().err
    assert message.startswith(
        "not installed: PyYAML>=6.0, pydantic>=2.7; install with: python -m pip install"
    )
    assert "gpu_requirements.txt" in message


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "describe_machine", lambda device: {"processor": "one"})
    assert gpu.main([]) == 2
    assert "no CUDA device: torch sees none" in capsys.readouterr().err


def test_the_requirements_are_those_of_the_project():
    """Every line stands in requirements.txt or requirements-dev.txt, with the same range."""
    known = "".join((ROOT / name).read_text() for name in ("requirements.txt", "requirements-dev.txt"))
    lines = [line for line in gpu.REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert [line for line in lines if line not in known.splitlines()] == []


def test_time_is_shared_among_the_parts():
    every = gpu.divide_time(8, list(gpu.SECONDS))
    assert every == pytest.approx(gpu.SECONDS)
    assert gpu.divide_time(2, ["steps"]) == {"steps": 120}


@pytest.mark.slow
def test_the_whole_program_on_the_cpu(tmp_path):
    path = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--quick", "--minutes", "40", "--json", str(path)]) == 0
    parts = json.loads(path.read_text())["parts"]
    assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(gpu.SECONDS, "done")
    tables = {row["table"].split(",")[0] for part in parts.values() for row in part["rows"]}
    assert {"tests", "static_dnw", "discrete_time_dnw", "continuous_time_dnw", "resnet18"} <= tables
    assert {"selection", "inference", "training"} <= tables
    assert all(row["exact"] for row in parts["selection"]["rows"])
    assert all(row["error"] < 1e-4 for row in parts["inference"]["rows"])
    assert {row["graph"] for row in parts["training"]["rows"]} == {"dnw", "random"}
