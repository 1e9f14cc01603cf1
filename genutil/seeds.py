"""One experiment with several seeds: a run for each, one after the other; finished ones are left out."""

from __future__ import annotations

import json
import logging
import os
import signal
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
from genutil.experiments import differences
from genutil.layouts import GRAPH_LAYOUT
from genutil.place import find_place
from genutil.reporting import run_settings
from genutil.spread import spread

_WIRING = "wiring.npz"
"""In a run's folder, with `record_wiring`."""
_log = logging.getLogger(__name__)


def run_seeds(script: str, argv: Sequence[str], config: Config) -> int:
    """Run the command once for each of `config.seeds`, as experiments called `<name>-seed<N>`.

    A run that was stopped goes on; one whose results are there is not repeated; one whose checkpoint is of
    other settings begins anew, and that checkpoint is kept in a folder beside. In an argument, `{seed}`
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
        own = seed_command(argv, config, seed)
        asked = parse_command_line(own).config
        results = finished_results(asked)
        if results is not None:
            _log.info("%s is finished: %s", asked.name, results["folder"])
        else:
            _log.info("%s: seed %d of %s", asked.name, seed, ", ".join(map(str, config.seeds)))
            status = _run([sys.executable, script, *own, *_going_on(asked)])
            if status:
                return status
            results = finished_results(asked)
        found.append(results or {})
    print(summary_of_seeds(str(config.name), found))
    return 0


def seed_command(argv: Sequence[str], config: Config, seed: int) -> list[str]:
    """The arguments of one seed's run, from those of the whole command and what they ask for."""
    given = [word.replace("{seed}", str(seed)) for word in argv]
    return [*given, "--seed", str(seed), "--name", f"{config.name}-seed{seed}", "--seeds", "none"]


def finished_results(config: Config) -> dict[str, Any] | None:
    """`results.json` of a finished training with these keys, but for those that do not decide results.

    Where the wiring is to be recorded, a training without its record is not finished.
    """
    asked = run_settings(config).values
    for path in sorted(Path(config.log_dir).expanduser().glob("*/results.json"), reverse=True):
        if config.record_wiring and not path.with_name(_WIRING).is_file():
            continue
        try:
            results: dict[str, Any] = json.loads(path.read_text())
            same = not differences(results["config"], asked)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if same and results.get("epochs") == config.num_epochs:
            return results
    return None


def _going_on(config: Config) -> list[str]:
    """The option that makes a run go on from its last checkpoint, if that is of the very same experiment.

    Weights of other settings would be told as results of these; a schedule that was made for another length
    cannot be gone on with, either.

    Raises:
        CheckpointError: the checkpoint is damaged.
    """
    path = Path(config.save_dir).expanduser() / str(config.name) / GRAPH_LAYOUT.last
    if not path.is_file():
        return []
    from genutil.checkpoint import describe, read_checkpoint  # imports torch, which takes a while

    content = read_checkpoint(path)
    changed = differences(content.get("config") or {}, run_settings(config).values)
    if changed:
        told = ", ".join(f"{key} is {new}, there {old}" for key, (old, new) in changed.items())
        told = told if content.get("config") else "it does not tell its settings"
        _log.info("%s begins anew, since %s is of another experiment: %s", config.name, path, told)
        return []
    epoch = describe(content, str(path)).epoch
    if config.record_wiring and epoch is not None and epoch + 1 >= config.num_epochs:
        _log.info("%s begins anew: it was trained to its end, but its wiring was not recorded", config.name)
        return []
    return ["--resume", "auto"]


def summary_of_seeds(name: str, found: Sequence[Mapping[str, Any]]) -> str:
    """Mean and standard deviation (of the sample) of each accuracy, as a small table for the screen."""
    lines = [f"{name}, {len(found)} seeds"]
    for key in [key for key in found[0] if key.endswith("_accuracy")]:
        values = [results[key] for results in found if key in results]
        lines.append(f"  {key:<15} {spread(values)} %")
    return "\n".join(lines)


def _run(command: Sequence[str]) -> int:
    """Run a command, which gets the signals that this process gets; 128 + n if signal n ended it."""
    with subprocess.Popen(command) as process, _handed_on(process):
        status = process.wait()
    return status if status >= 0 else 128 - status


@contextmanager
def _handed_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    def hand_on(signum: int, frame: FrameType | None) -> None:
        # Ctrl-C reaches both by itself; a second one would end the run before it has saved.
        if signum != signal.SIGINT or not _in_foreground(process.pid):
            process.send_signal(signum)

    before = {signum: signal.signal(signum, hand_on) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _in_foreground(pid: int) -> bool:
    """Whether the terminal, if there is one, sends its Ctrl-C to this process."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgid(pid)
    except OSError:
        return False
    finally:
        os.close(terminal)
