"""Commands that run in the test's process, without the seconds in which one of their own imports torch."""

import contextlib
import io
import subprocess

import runner
from tests.conftest import ROOT


def run_here(command, cwd, stdout=None, text=None):
    """Stands in for subprocess.run of `python runner.py …` in the project's folder."""
    assert command[1] == "runner.py" and cwd == ROOT
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed) if stdout == subprocess.PIPE else contextlib.nullcontext():
        status = runner.main(command[2:])
    return subprocess.CompletedProcess(command, status, printed.getvalue())
