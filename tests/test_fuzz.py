"""Wrong inputs of every kind end with a result or one clear message; `make fuzz` tries many more of them."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.fuzz.guard import EXECUTED
from tests.fuzz.kinds import KINDS, counts
from tests.fuzz.pool import fuzz


def found_by(kinds, cases, seed, folder):
    found = fuzz(kinds, cases, seed, 1, folder)
    assert sum(progress.cases for progress in found) == cases
    assert all(progress.refused > 0 for progress in found)
    failures = [failure for progress in found for failure in progress.failures.values()]
    return [f"{failure.signature}\n{failure.case}\n{failure.report}" for failure in failures]


def test_cases_of_every_kind(tmp_path):
    failures = found_by(list(KINDS), 50, 0, tmp_path)
    assert not failures, "\n\n".join(failures)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_thousand_cases(tmp_path):
    failures = found_by(list(KINDS), 2000, 1, tmp_path)
    assert not failures, "\n\n".join(failures)


def test_counts_are_shared_out():
    assert sum(counts(list(KINDS), 10_000).values()) == 10_000
    assert all(count >= 1 for count in counts(list(KINDS), len(KINDS)).values())


def test_every_wrong_end_is_noticed(tmp_path):
    command = [sys.executable, "-m", "tests.fuzz.wrong_ends", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert found["result"] == found["inside"] == "None"
    assert found["refused"] == "refused"
    starts = {
        "empty": "empty message", "long": "message that is too long", "traceback": "traceback in a message",
        "error": "KeyError", "exit": "SystemExit", "hang": "hang", "memory": "MemoryError",
        "executed": f"forbidden: {EXECUTED}", "process": "forbidden: subprocess.Popen",
        "elsewhere": "forbidden: open", "crash": "the process ended with status -6",
    }  # fmt: skip
    for name, start in starts.items():
        assert found[name].startswith(start), (name, found[name])
