"""Trainings that the programs of this room start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genutil.config.command_line import parse_command_line
from genutil.runs.run_folder import RESULTS
from genutil.text_files import read_json

ROOT = Path(__file__).resolve().parent.parent


def train_app(app: str, options: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """Run an experiment by the command. Returns its exit status and, if that is 0, its `results.json`.

    The status is 2 if the options made it do something else than leave results.

    Raises:
        ConfigError: the options are wrong.
    """
    config = parse_command_line([f"app:{ROOT / app}", *options]).config
    log_dir = ROOT / Path(config.log_dir).expanduser()
    before = set(log_dir.glob(f"*/{RESULTS}"))
    command = [sys.executable, "runner.py", f"app:{app}", *options]
    process = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if process.returncode:
        return process.returncode, {}
    # Another experiment may have ended meanwhile in the same folder.
    results = [read_json(path) for path in sorted(set(log_dir.glob(f"*/{RESULTS}")) - before)]
    results = [content for content in results if content["name"].startswith(str(config.name))]
    if not results:
        print(process.stdout, end="")
        print(f"app:{app} left no results; remove the options that train nothing", file=sys.stderr)
        return 2, {}
    return 0, results[-1]
