"""docs/tutorial.ipynb: a valid notebook with outputs, whose code runs."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PATH = ROOT / "docs" / "tutorial.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return json.loads(PATH.read_text())


def code_cells(notebook):
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_of_format_4(notebook):
    """With an own id for each cell, as format 4.5 asks for; and small enough to be read at once."""
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = notebook["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        assert cell["cell_type"] in ("markdown", "code")
        assert set(cell) - {"outputs", "execution_count"} == {"cell_type", "id", "metadata", "source"}
        assert ("outputs" in cell) == ("execution_count" in cell) == (cell["cell_type"] == "code")
    assert PATH.stat().st_size < 300_000


def test_every_cell_of_code_compiles_and_was_executed_in_order(notebook):
    for number, source in enumerate(code_cells(notebook), start=1):
        compile(source, f"cell {number}", "exec")
    counts = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_outputs_are_text_and_pictures_without_errors(notebook):
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert all(output.get("name") != "stderr" for output in outputs)
    pictures = [output for output in outputs if "image/png" in output.get("data", ())]
    assert len(pictures) == sum("plt.show()" in source for source in code_cells(notebook)) >= 2
    assert str(ROOT.parent) not in PATH.read_text()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_cells_run_in_one_process(notebook, tmp_path):
    """In an empty folder, as many steps as in the notebook."""
    script = tmp_path / "tutorial.py"
    script.write_text("\n".join(code_cells(notebook)))
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=3500,
    )
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout.splitlines()[-1]
    assert (tmp_path / "resnet18.onnx").stat().st_size > 0
