"""Starting runs, and finding what they have left."""

from __future__ import annotations

import glob
import json
import logging
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from genutil.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
_log = logging.getLogger(__name__)


def find_record(run: Path) -> Path:
    """The recorded wiring of a run.

    Args:
        run: its folder, the record itself, or the folder's name without options and time: the last one.

    Raises:
        UserError: there is none.
    """
    if not run.exists():
        folders = [path for path in run.parent.glob(f"{glob.escape(run.name)}[-+]*") if path.is_dir()]
        run = max(folders, key=lambda path: path.stat().st_mtime, default=run)
    path = run / "wiring.npz" if run.is_dir() else run
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; train with --record_wiring to have one")
    return path


def read_results(runs: Sequence[Path], evaluations: bool = False) -> list[dict[str, Any]]:
    """`results.json` of trainings, by name and seed.

    Args:
        runs: folders of runs, or folders that hold some.
        evaluations: those of evaluations, too.

    Raises:
        UserError: there is none in one of them, or a file is damaged.
    """
    found = []
    for run in runs:
        files = (
            [run / "results.json"] if (run / "results.json").is_file() else sorted(run.glob("*/results.json"))
        )
        if not files:
            raise UserError(f"{run}: no finished run is there (results.json)")
        for file in files:
            try:
                results = json.loads(file.read_text())
            except ValueError as error:
                raise UserError(f"{file}: is damaged ({error})") from error
            if evaluations or "epochs" in results:  # an evaluation has none
                found.append((file.stat().st_mtime, results))
    ordered = sorted(found, key=lambda pair: (pair[1]["name"], pair[1]["seed"], pair[0]))
    return [results for _, results in ordered]


def by_experiment(results: Iterable[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Results by experiment: its name without the seed, and what distinguishes experiments of one name.

    Of several results with one seed the last one counts; the others are told.
    """
    groups: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for result in results:
        config = result["config"]
        name = str(result["name"]).removesuffix(f"-seed{result['seed']}")
        kind = repr([config.get(key) for key in ("model", "data", "graph", "prune_rate", "num_epochs", "lr")])
        group = groups.setdefault((name, kind), {})
        if result["seed"] in group:
            earlier = group[result["seed"]]["folder"]
            _log.warning("%s is left out: a later run has the same experiment and seed", earlier)
        group[result["seed"]] = result
    return {key: list(group.values()) for key, group in groups.items()}


def train(app: str, options: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """Run an experiment by the command. Returns its exit status and, if that is 0, its `results.json`."""
    command = [sys.executable, "runner.py", f"app:{app}", *options]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return done.returncode, {}
    folder = done.stdout.rstrip().rsplit(" ", 1)[-1]
    return 0, json.loads((ROOT / folder / "results.json").read_text())
