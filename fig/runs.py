"""Starting runs, and finding what one has recorded."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genutil.errors import UserError
from genutil.experiment_name import folder_name

ROOT = Path(__file__).resolve().parent.parent
_RECORD = "wiring.npz"
_START = re.compile(r"-(\d{8}-\d{6})(?:\.(\d+))?")


def start_of(folder: Path, name: str) -> tuple[str, int] | None:
    """When a run of this name, as folders have it, began, for sorting; None if the folder is of another name.

    A run's folder is called after its experiment, `+` and options, and the start (`x+lr=0.1-20260131-235959`,
    or `….2` if two began in one second).
    """
    if not folder.name.startswith(name):
        return None
    match = re.fullmatch(rf"(?:\+.*)?{_START.pattern}", folder.name[len(name) :])
    return (match[1], int(match[2] or 1)) if match else None


def find_record(run: Path) -> Path:
    """The recorded wiring of a run.

    Args:
        run: its folder, the record itself, or in place of the folder's name the experiment's: of its runs
            that have a record, the last one.

    Raises:
        UserError: there is none.
    """
    if not run.exists() and run.parent.is_dir():
        name = folder_name(run.name) if run.name else ""
        started = {path: start_of(path, name) for path in run.parent.iterdir()}
        found = [(start, path) for path, start in started.items() if start and (path / _RECORD).is_file()]
        run = max(found)[1] if found else run
    path = run / _RECORD if run.is_dir() else run
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; train with --record_wiring to have one")
    return path


def train(app: str, options: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """Run an experiment by the command. Returns its exit status and, if that is 0, its `results.json`.

    The status is 2 if the options made it do something else than leave results.
    """
    command = [sys.executable, "runner.py", f"app:{app}", *options]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return done.returncode, {}
    # The folder's name may hold spaces: it is all that follows on its line.
    folders = re.findall(r"^  files +(\S.*)$", done.stdout, re.MULTILINE)
    if not folders:
        print(done.stdout, end="")
        print(f"app:{app} left no results; leave out options that train nothing", file=sys.stderr)
        return 2, {}
    return 0, json.loads((ROOT / folders[-1] / "results.json").read_text())
