"""One experiment with several seeds: a run for each, one after the other; finished ones are left out."""

from __future__ import annotations

import json
import logging
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from genutil.cli import parse_command_line
from genutil.config import Config
from genutil.errors import ConfigError
from genutil.place import find_place
from genutil.reporting import run_settings

_PLACES = frozenset(
    {
        "seeds", "resume", "data_dir", "save_dir", "log_dir", "log_interval", "gpus", "processes", "workers",
        "max_restarts", "timeout", "keep_last", "checkpoint_interval", "checkpoint_interval_steps",
        "record_wiring", "record_interval", "skip_profiling",
    }
)  # fmt: skip
"""Keys that do not decide a training's results."""
_log = logging.getLogger(__name__)


def run_seeds(script: str, argv: Sequence[str], config: Config) -> int:
    """Run the command once for each of `config.seeds`, as experiments called `<name>-seed<N>`.

    A run that was stopped goes on; one whose results are there is not repeated. In an argument, `{seed}`
    stands for the seed, such as in the path of another experiment's checkpoint.

    Args:
        script: the command's file.
        argv: its arguments, `--seeds` among them.
        config: what they ask for.

    Returns:
        The exit status: that of the first run that fails, or 0.

    Raises:
        ConfigError: torchrun has started this process.
    """
    assert config.seeds is not None
    if find_place() is not None:
        raise ConfigError("seeds: torchrun starts one run; start it once for each --seed and its --name")
    found = []
    for seed in config.seeds:
        name = f"{config.name}-seed{seed}"
        given = [word.replace("{seed}", str(seed)) for word in argv]
        own = [*given, "--seed", str(seed), "--name", name, "--resume", "auto", "--seeds", "none"]
        results = finished_results(parse_command_line(own).config)
        if results is not None:
            _log.info("%s is finished: %s", name, results["folder"])
        else:
            _log.info("%s: seed %d of %s", name, seed, ", ".join(map(str, config.seeds)))
            status = _run([sys.executable, script, *own])
            if status:
                return status
            results = finished_results(parse_command_line(own).config)
        found.append(results or {})
    print(summary_of_seeds(str(config.name), found))
    return 0


def finished_results(config: Config) -> dict[str, Any] | None:
    """`results.json` of a finished training with these keys, but for those that do not decide results."""
    for path in sorted(Path(config.log_dir).expanduser().glob("*/results.json"), reverse=True):
        try:
            results: dict[str, Any] = json.loads(path.read_text())
            same = _deciding(results["config"]) == _deciding(run_settings(config).values)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if same and results.get("epochs") == config.num_epochs:
            return results
    return None


def summary_of_seeds(name: str, found: Sequence[Mapping[str, Any]]) -> str:
    """Mean and standard deviation (of the sample) of each accuracy, as a small table for the screen."""
    lines = [f"{name}, {len(found)} seeds"]
    for key in [key for key in found[0] if key.endswith("_accuracy")]:
        values = [results[key] for results in found if key in results]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        lines.append(f"  {key:<15} {statistics.mean(values):.2f}{spread} %")
    return "\n".join(lines)


def _deciding(values: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in values.items() if key not in _PLACES}
    return json.loads(json.dumps(kept))  # type: ignore[no-any-return]


def _run(command: Sequence[str]) -> int:
    """Run a command, which gets the signals that this process gets; 128 + n if signal n ended it."""
    with subprocess.Popen(command) as process, _handed_on(process):
        status = process.wait()
    return status if status >= 0 else 128 - status


@contextmanager
def _handed_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    def hand_on(signum: int, frame: FrameType | None) -> None:
        # Ctrl-C reaches both by itself; a second one would end the run before it has saved.
        if signum != signal.SIGINT:
            process.send_signal(signum)

    before = {signum: signal.signal(signum, hand_on) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
