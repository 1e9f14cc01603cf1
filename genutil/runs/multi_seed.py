"""One experiment with several seeds: a run for each, one after the other; finished ones are left out."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from genutil.checkpoint.file_names import GRAPH_NAMES
from genutil.config import Config
from genutil.config.command_line import parse_command_line
from genutil.config.identity import differences
from genutil.distributed.rank_info import rank_info_from_env
from genutil.errors import ConfigError
from genutil.runs.past_runs import checkpoints_of, finished_results, folder_lacking_results, read_run_marker
from genutil.runs.run_folder import run_settings
from genutil.runs.start_record import is_mixed, record_in, settings_in
from genutil.signals import stop_signals
from genutil.spread import spread

_log = logging.getLogger(__name__)


def run_seeds(script: str, argv: Sequence[str], config: Config) -> int:
    """Run the command once for each of `config.seeds`, as experiments called `<name>-seed<N>`.

    A run that was stopped is resumed; one whose results are there is not repeated; one whose checkpoint is of
    other settings starts from the beginning, and that checkpoint is kept in a folder beside. In an argument,
    `{seed}` stands for the seed, such as in the path of another experiment's checkpoint.

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
    if rank_info_from_env() is not None:
        raise ConfigError("seeds: torchrun starts one run; start it once for each --seed and its --name")
    found = []
    for number, seed in enumerate(config.seeds, 1):
        own = seed_command(argv, config, seed)
        asked = parse_command_line(own).config
        results = finished_results(asked)
        if results is not None:
            _log.info("%s is finished: %s", asked.name, results["folder"])
        else:
            _log.info("%s: seed %d (%d of %d)", asked.name, seed, number, len(config.seeds))
            status = _run([sys.executable, script, *own, *_resumed(asked)])
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


def _resumed(config: Config) -> list[str]:
    """The option that resumes a run from its last checkpoint, if that is of the very same experiment.

    Weights of other settings would be reported as results of these; neither can a schedule that was made for
    another length be continued.

    Raises:
        CheckpointError: the checkpoint is damaged.
    """
    path = checkpoints_of(config) / GRAPH_NAMES.last
    if not path.is_file():
        return []
    from genutil.checkpoint.serialization import (  # imports torch, which takes a while
        describe,
        read_checkpoint,
    )

    content = read_checkpoint(path)
    settings = settings_in(content)
    changed = differences(settings or {}, run_settings(config).values)
    reason, epoch = None, describe(content, str(path)).epoch
    if settings is None:
        reason = f"{path} does not hold its settings"
    elif changed:
        pairs = ", ".join(f"{key} is {new}, there {old}" for key, (old, new) in changed.items())
        reason = f"{path} is of another experiment: {pairs}"
    elif is_mixed(record_in(content)):
        reason = f"the training of {path} was resumed from a checkpoint of other settings"
    elif epoch is not None and epoch + 1 >= config.num_epochs:
        if config.record_wiring:
            reason = f"{path} is trained to the end, but its wiring was not recorded"
        elif folder_lacking_results(config, read_run_marker(path.parent)) is None:
            reason = f"{path} is trained to the end, but its results are not in {config.log_dir}"
    if reason is None:
        return ["--resume", "auto"]
    _log.info("%s starts from the beginning, since %s", config.name, reason)
    return []


def summary_of_seeds(name: str, found: Sequence[Mapping[str, Any]]) -> str:
    """Mean and standard deviation (of the sample) of each accuracy, as a small table for the screen."""
    lines = [f"{name}, {len(found)} seeds"]
    for key in [key for key in found[0] if key.endswith("_accuracy")]:
        values = [results[key] for results in found if key in results]
        lines.append(f"  {key:<15} {spread(values)} %")
    return "\n".join(lines)


def _run(command: Sequence[str]) -> int:
    """Run a command, which gets the signals that this process gets; 128 + n if signal n ended it."""
    with subprocess.Popen(command) as process, _forward_signals(process):
        status = process.wait()
    return status if status >= 0 else 128 - status


@contextmanager
def _forward_signals(process: subprocess.Popen[bytes]) -> Iterator[None]:
    def hand_on(signum: int, frame: FrameType | None) -> None:
        # Ctrl-C reaches both by itself; a second one would end the run before it has saved.
        if signum != signal.SIGINT or not _in_foreground(process.pid):
            process.send_signal(signum)

    before = {signum: signal.signal(signum, hand_on) for signum in stop_signals()}
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
