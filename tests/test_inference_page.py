"""The example of docs/inference.md, in Python and in C."""

import os
import shlex
import subprocess
import sys

import torch

from tests.conftest import ROOT
from tests.helpers.documentation import COMMANDS, blocks
from tests.helpers.engines import NEEDS_COMPILER
from wirings.native.program import Geometry


@NEEDS_COMPILER
def test_a_network_is_wired_trained_compiled_and_run_in_c(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (example,) = [block for block in blocks("python") if "wirings.compile(" in block]
    names = {}
    exec(example, names)
    assert capsys.readouterr().out.startswith("native engine: 1 programs of ")
    with torch.no_grad():
        expected = names["model"](names["images"])
    for logits in (names["logits"], names["again"](names["images"])):
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)

    first = next(n for n, command in enumerate(COMMANDS) if command.startswith("python -m wirings.native"))
    for command in COMMANDS[first : first + 3]:
        words = [str(ROOT / word) if (ROOT / word).exists() else word for word in shlex.split(command)]
        words[0] = sys.executable if words[0] == "python" else words[0]
        done = subprocess.run(
            words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert done.returncode == 0, done.stderr
    classes = [int(line.split()[3]) for line in done.stdout.splitlines()]
    assert classes == expected[:4].argmax(1).tolist()


def test_the_page_names_the_fields_of_a_geometry():
    """The length of a file's geometries."""
    page = (ROOT / "docs" / "inference.md").read_text()
    assert f"| geometries × {len(Geometry.__dataclass_fields__)} × 8 |" in page
