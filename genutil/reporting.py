"""What a run leaves behind for its reader: a folder with its configuration, metrics and results."""

from __future__ import annotations

import json
import logging
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from genutil.atomic import write_atomically
from genutil.config import Config, to_yaml
from genutil.errors import UserError

_PACKAGES = ("torch", "torchvision", "numpy", "torchdiffeq")
_COUNTS = (
    "images", "edges", "effective_edges", "live_nodes", "params", "macs", "corrupt_images", "ode_evaluations",
)  # fmt: skip
_SPELT = {
    "ode_evaluations": "ODE evaluations",
    "effective_edges": "effective edges",
    "live_nodes": "live nodes",
    "params": "parameters",
    "macs": "MACs",
    "corrupt_images": "corrupt images",
}
_PROJECT = Path(__file__).resolve().parent.parent


class RunFolder:
    """`<log_dir>/<run>/`: `config.yml` at once, then metrics as they come, `results.json` at the end.

    Args:
        config: the experiment; the run is named after it, its overrides and the time.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._start = time.monotonic()
        started = time.strftime("%Y%m%d-%H%M%S")
        try:
            self.path = _new_folder(Path(config.log_dir).expanduser(), f"{run_label(config)}-{started}")
            write_atomically(self.path / "config.yml", lambda file: file.write(to_yaml(config).encode()))
        except OSError as error:
            raise UserError(f"log_dir: {config.log_dir} cannot be written to ({error})") from error

    def add_metrics(self, line: dict[str, Any]) -> None:
        """Append one line to `metrics.jsonl`."""
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def write_results(self, results: dict[str, Any], device: str) -> dict[str, Any]:
        """Write `results.json`: the numbers and all that is needed to repeat them. Returns its content."""
        content = {
            **results,
            "name": self.config.name,
            "folder": str(self.path),
            "seed": self.config.seed,
            "wall_time": round(time.monotonic() - self._start, 3),
            "device": device,
            **environment(),
            "config": self.config.model_dump(),
        }
        text = json.dumps(content, indent=2) + "\n"
        write_atomically(self.path / "results.json", lambda file: file.write(text.encode()))
        return content


def run_label(config: Config) -> str:
    """Experiment name and overrides, safe as a folder's name and at most 100 characters long."""
    places = {"save_dir", "log_dir", "data_dir", "resume", "gpus", "workers", "name"}
    words = [f"{key}={value}" for key, value in config.overrides.items() if key not in places]
    label = "+".join([str(config.name), *words])
    return re.sub(r"[^A-Za-z0-9_.+=-]+", "_", label)[:100].rstrip("_.")


def environment() -> dict[str, Any]:
    """Versions, machine and commit of this process."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"versions": versions, "platform": platform.platform(), "commit": commit(), "command": sys.argv}


def commit() -> str | None:
    """The project's git commit, with `-dirty` where files differ from it; None outside a git checkout."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            cwd=_PROJECT, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def summary(results: dict[str, Any]) -> str:
    """The final numbers as a small table for the screen."""
    rows = [(key, f"{value:.2f} %") for key, value in results.items() if key.endswith("_accuracy")]
    rows.append(("loss", f"{results['CELoss']:.4f}"))
    rows += [(_SPELT.get(key, key), f"{results[key]:,}") for key in _COUNTS if key in results]
    if "latency_ms" in results:
        rows.append(("latency", f"{results['latency_ms']:.3f} ms per image ({results['engine']})"))
    rows += [("time", f"{results['wall_time']:.1f} s"), ("files", results["folder"])]
    return "\n".join([str(results["name"]), *(f"  {key:<15} {value}" for key, value in rows)])


def set_up_logging() -> None:
    """Messages of this process go to standard error, one line each."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)


def _new_folder(parent: Path, name: str) -> Path:
    """Two runs that start in the same second get two folders."""
    for number in range(1, 1000):
        path = parent / (name if number == 1 else f"{name}.{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not parent.is_dir():
                raise
            continue
        return path
    raise OSError(f"no free folder name like {name}")
