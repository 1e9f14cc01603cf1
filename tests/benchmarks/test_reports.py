"""The benchmarks run, and write what they print."""

import json
import re
import subprocess
import sys

import pytest

from benchmarks.__main__ import as_page, commands, measure_one
from benchmarks.machine import measure
from tests.conftest import ROOT

STATIC = "apps/small_scale/static_dnw.yml"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_candidates_are_timed_in_turn():
    calls = []
    candidates = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    times = measure(candidates, rounds=2, warm_up=1, between=lambda: calls.append("-"))
    assert "".join(calls) == "-ab" * 3
    for spread in times.values():
        assert 0 <= spread.low <= spread.median <= spread.high
        assert spread.numbers().keys() == {"min", "median", "max", "rounds"}


@pytest.mark.slow
def test_a_report_tells_machine_and_numbers(capfd):
    command = ["train_step", STATIC, "--batch_size", "2", "--rounds", "1"]
    report = measure_one(command)
    assert [result["edges"] for result in report["results"]] == ["plain definition", "dnw", "all edges"]
    assert all(result["median"] > 0 for result in report["results"])
    assert {"processor", "threads", "versions", "commit"} <= report["machine"].keys()
    printed = capfd.readouterr().out
    assert report["body"] in printed
    page = as_page([(command, report)], minutes=1.0)
    for part in (report["body"], report["title"], "`python -m benchmarks.train_step", "processor: "):
        assert part in page


@pytest.mark.slow
def test_memory_is_measured_in_processes_of_their_own(tmp_path):
    report = measure_one(["memory", STATIC, "--batch_size", "64", "--rounds", "2", "--steps", "1"])
    plain, here, _ = (result["median"] for result in report["results"])
    assert all(result["min"] <= result["median"] <= result["max"] for result in report["results"])
    assert 10e6 < here < plain  # 64 images with 800 maps of 8 × 8 take 13 MB


def test_all_of_them_are_run_by_make_bench():
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "--json FILE" in path.read_text()}
    others = {"learning_curves", "kill_test", "sparse_accuracy", "gpu_floors", "gpu"}
    assert modules - others == {command[0] for command in commands(quick=False)}
    assert len(commands(quick=True)) == len(commands(quick=False))


@pytest.mark.slow
def test_make_bench_writes_a_page(tmp_path):
    path = tmp_path / "RESULTS.md"
    subprocess.run([sys.executable, "-m", "benchmarks", "--quick", "--output", str(path)], check=True)
    assert path.read_text().count("\n## ") == len(commands(quick=True))


@pytest.mark.slow
def test_json_is_written(tmp_path):
    path = tmp_path / "topk.json"
    command = [sys.executable, "-m", "benchmarks.topk", "--rounds", "1", "--json", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    results = json.loads(path.read_text())["results"]
    assert len(results) == 3
    assert all(result["selection"]["median"] > 0 for result in results)


@pytest.mark.slow
def test_processes_are_measured_against_one():
    report = measure_one(["distributed", STATIC, "--batch_size", "4", "--rounds", "2", "--steps", "2"])
    one, two = report["results"]
    assert (one["ratio"], one["rounds"], two["rounds"]) == (1, 2, 2)
    apart = float(re.search(r"losses of 50 steps in float64 differ by (\S+) at most", report["body"])[1])
    assert apart < 1e-9


@pytest.mark.slow
def test_what_grows_is_measured():
    report = measure_one(["scaling", STATIC, "--rounds", "1", "--processes", "2", "--images", "3"])
    found = {result["what"]: result["value"] for result in report["results"]}
    assert found["gradient bytes"] == 4 * found["weights"] > 4 * 640_000
    assert found["checkpoint bytes"] > 2 * found["gradient bytes"]
    assert all(value > 0 for value in found.values())


@pytest.mark.slow
def test_a_few_kills_leave_nothing_broken():
    report = measure_one(["kill_test", "--kills", "4", "--epochs", "2"])
    found = {result["what"]: result["count"] for result in report["results"]}
    assert (found["kills"], found["unreadable checkpoints"]) == (4, 0)
    assert found["checkpoints read"] > 0
    assert (
        found["runs that reached their end"] == found["ends that equal the undisturbed run to the bit"] >= 1
    )
