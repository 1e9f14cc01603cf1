"""Run folders: configuration, metrics, results and provenance of a run."""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from genutil.config import Config
from genutil.config.identity import identity
from genutil.config.schema import keys_of, schema
from genutil.distributed.rank_info import RankInfo
from genutil.exceptions import UserError
from genutil.experiment_name import folder_name
from wirings.files import write_atomically

_PACKAGES = ("torch", "torchvision", "numpy", "torchdiffeq")
_COUNTS = (
    "images", "weights", "kept", "edges", "effective_edges", "live_nodes", "params", "macs", "corrupt_images",
    "ode_evaluations",
)  # fmt: skip
"""Counts in results that `summary` lists, in this order."""
_SPELT = {
    "kept": "kept weights",
    "ode_evaluations": "ODE evaluations",
    "effective_edges": "effective edges",
    "live_nodes": "live nodes",
    "params": "parameters",
    "macs": "MACs",
    "corrupt_images": "corrupt images",
}
"""How `summary` writes them, where that is not their key."""
METRICS, RESULTS, WIRING = "metrics.jsonl", "results.json", "wiring"
_log = logging.getLogger(__name__)
_PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class RunSettings:
    """Name, folder and settings of a run.

    Attributes:
        name: name of the experiment.
        label: beginning of the folder's name, safe for file systems.
        log_dir: folder of the folders of all runs.
        seed: seed of the random numbers.
        values: all settings by name, as plain values.
    """

    name: str
    label: str
    log_dir: Path
    seed: int
    values: Mapping[str, Any]


def run_settings(config: Config) -> RunSettings:
    """Settings of an experiment's run; its folder is named after the experiment and its overrides."""
    return RunSettings(
        name=str(config.name),
        label=run_label(config),
        log_dir=Path(config.log_dir).expanduser(),
        seed=config.seed,
        values={key: getattr(config, key) for key in schema()},
    )


def wiring_record_of(run_dir: Path) -> Path | None:
    """The record of the wiring in the folder of a run. Earlier versions wrote one file."""
    paths = (run_dir / WIRING, run_dir / f"{WIRING}.npz")
    return next((path for path in paths if path.exists()), None)


class RunFolder:
    """`<log_dir>/<run>/`: `config.yml` at once, then metrics as they come, `results.json` at the end.

    Args:
        settings: settings of the run.
        earlier_dir: folder of an earlier start of the same run; this start writes to it, too.
        step: training steps that were done before this start; metrics of later steps are removed, since they
            will be written again.

    Attributes:
        environment: versions, machine and commit at the start.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(self, settings: RunSettings, earlier_dir: Path | None = None, step: int = 0) -> None:
        self.settings, self.environment = settings, environment()
        self._start = time.monotonic()
        started = time.strftime("%Y%m%d-%H%M%S")
        self._new_folders: list[Path] = []
        with self.io_errors_as_user_errors():
            self._seconds_before = 0.0
            if earlier_dir is not None and earlier_dir.is_dir():
                self.path = earlier_dir
                self._drop_metrics_after(step)
                self._seconds_before = sum(line.get("epoch_time", 0.0) for line in self.metrics())
            else:
                log_dirs = (settings.log_dir, *settings.log_dir.parents)
                self._new_folders = [folder for folder in log_dirs if not folder.exists()]
                self.path = _new_folder(settings.log_dir, f"{settings.label}-{started}")
                self._new_folders.insert(0, self.path)
            text = yaml.safe_dump(dict(settings.values), sort_keys=False)
            write_atomically(self.path / "config.yml", lambda file: file.write(text.encode()))

    def add_metrics(self, line: dict[str, Any]) -> None:
        """Append one line to `metrics.jsonl`.

        Raises:
            UserError: it cannot be written.
        """
        with self.io_errors_as_user_errors():
            if not self.path.is_dir():
                _log.warning("%s was removed and is created again; its files are lost", self.path)
                self.path.mkdir(parents=True)
            with open(self.path / METRICS, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl` so far."""
        path = self.path / METRICS
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def write_results(
        self,
        results: dict[str, Any],
        rank_info: RankInfo,
        device: str,
        write_files: Callable[[dict[str, Any]], object] | None = None,
    ) -> dict[str, Any]:
        """Write `results.json`: the results and all that is needed to reproduce them.

        Args:
            results: metrics and counts.
            rank_info: rank of this process.
            device: device of this process.
            write_files: called with all that `results.json` will contain, before it is written: a run without
                that file is not finished.

        Returns:
            What the file contains.

        Raises:
            UserError: it cannot be written.
        """
        all_results = {
            **results,
            "name": self.settings.name,
            "folder": str(self.path),
            "seed": self.settings.seed,
            "wall_time": round(self._seconds_before + time.monotonic() - self._start, 3),
            "device": device,
            "processes": rank_info.size,
            "restarts": rank_info.restarts,
            **self.environment,
            "identity": identity(self.settings.values),
            "config": dict(self.settings.values),
        }
        if write_files is not None:
            write_files(all_results)
        text = json.dumps(all_results, indent=2) + "\n"
        with self.io_errors_as_user_errors():
            write_atomically(self.path / RESULTS, lambda file: file.write(text.encode()))
        return all_results

    @contextmanager
    def removed_on_error(self) -> Iterator[None]:
        """Context manager: an error removes the folders that were made for this run."""
        try:
            yield
        except BaseException:
            if self._new_folders:
                shutil.rmtree(self.path, ignore_errors=True)
            for folder in self._new_folders[1:]:
                with suppress(OSError):  # another run uses it
                    folder.rmdir()
            raise

    def _drop_metrics_after(self, step: int) -> None:
        """Also drops lines that cannot be read, such as one that was cut off."""
        metrics = self.path / METRICS
        if metrics.exists():
            lines = metrics.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            text = "".join(line for line in lines if line.endswith("\n") and _is_until(line, step))
            write_atomically(metrics, lambda file: file.write(text.encode()))

    @contextmanager
    def io_errors_as_user_errors(self) -> Iterator[None]:
        """Convert an OSError while writing to the folder, such as a full disk, into a UserError.

        Raises:
            UserError: a file could not be written.
        """
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.settings.log_dir}: cannot be written to ({error}); free some space or choose another "
                "folder; existing checkpoints are complete"
            ) from error


def _is_until(line: str, step: int) -> bool:
    """Whether a line of metrics is that of a step up to this one."""
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def run_label(config: Config) -> str:
    """Experiment name and overrides that decide results, safe for file systems, at most 100 characters.

    An override that the name already contains, such as the seed of `digits-seed1`, is omitted.
    """
    name, keys = str(config.name), keys_of("result", "order", "evaluation")
    words = [
        f"{key}={value}"
        for key, value in config.overrides.items()
        if key in keys and not _is_in_name(key, value, name)
    ]
    label = "+".join([folder_name(name), *words])
    return re.sub(r"[^A-Za-z0-9_.+=-]+", "_", label)[:100].rstrip("_.")


def _is_in_name(key: str, value: Any, name: str) -> bool:
    word = rf"{re.escape(key)}[=_-]?{re.escape(str(value))}"
    return re.search(rf"(?<![A-Za-z0-9]){word}(?!\.?[A-Za-z0-9])", name) is not None


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
    """The project's git commit, with `-dirty` if files differ from it; None outside of its own checkout.

    A repository that contains the project's folder, such as another project with its virtual environment,
    does not count.
    """
    if not (_PROJECT / ".git").exists():  # a folder, or a file in a worktree
        return None
    # A hook of git that starts a run names its own repository in these variables.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            cwd=_PROJECT, env=variables, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def processor() -> str:
    """The processor's name, and its family where a virtual machine hides the number."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def summary(results: dict[str, Any]) -> str:
    """The results as a small table for the terminal."""
    rows = [(key, f"{value:.2f} %") for key, value in results.items() if key.endswith("_accuracy")]
    if "CELoss" in results:
        rows.append(("loss", f"{results['CELoss']:.4f}"))
    rows += [(_SPELT.get(key, key), f"{results[key]:,}") for key in _COUNTS if key in results]
    if "latency_ms" in results:
        rows.append(("latency", f"{results['latency_ms']:.3f} ms per image ({results['engine']})"))
    rows += [("time", f"{results['wall_time']:.1f} s"), ("files", results["folder"])]
    return "\n".join([str(results["name"]), *(f"  {key:<15} {value}" for key, value in rows)])


def set_up_logging(rank: int = 0) -> None:
    """Log to standard error, one line a message. Only rank 0 logs below ERROR.

    The other ranks also log which images they cannot read, which rank 0 cannot know.
    """
    name = "" if rank == 0 else f"process {rank}: "
    logging.basicConfig(level=logging.INFO, format=f"{name}%(message)s", stream=sys.stderr)
    if rank:
        logging.getLogger().setLevel(logging.ERROR)
        logging.getLogger("data.image_folder").setLevel(logging.WARNING)


def _new_folder(parent: Path, name: str) -> Path:
    """A new folder; two runs that start in the same second get different ones."""
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
