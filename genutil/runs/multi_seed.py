"""Several seeds of an experiment: one run each, one after the other; finished ones are skipped."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from genutil.checkpoint.file_names import format_named
from genutil.config import Config
from genutil.config.command_line import parse_command_line
from genutil.config.identity import differences
from genutil.distributed.rank_info import rank_info_from_env
from genutil.exceptions import ConfigError
from genutil.runs.past_runs import (
    checkpoint_dir_of,
    finished_results,
    read_run_marker,
    run_dir_lacking_results,
)
from genutil.runs.run_folder import run_settings
from genutil.runs.start_record import has_setting_changes, record_in, settings_in
from genutil.signals import stop_signals
from genutil.spread import spread

_log = logging.getLogger(__name__)


def run_seeds(script: str, argv: Sequence[str], config: Config) -> int:
    """Run the command once for each of `config.seeds`, as experiments called `<name>-seed<N>`.

    A stopped run is resumed, and a finished one is not repeated. One whose checkpoint belongs to other
    settings starts from the beginning, and that checkpoint is moved to another folder. `{seed}` in an
    argument is replaced by the seed, such as in the path of another experiment's checkpoint.

    Args:
        script: the command's file.
        argv: its arguments, `--seeds` among them.
        config: the experiment that they describe.

    Returns:
        The exit status: that of the first run that fails, or 0.

    Raises:
        ConfigError: torchrun has started this process.
    """
    assert config.seeds is not None
    if rank_info_from_env() is not None:
        raise ConfigError("seeds: torchrun starts one run; start it once for each --seed and its --name")
    all_results = []
    for number, seed in enumerate(config.seeds, 1):
        arguments = seed_command(argv, config, seed)
        experiment = parse_command_line(arguments).config
        results = finished_results(experiment)
        if results is not None:
            _log.info("%s is finished: %s", experiment.name, results["folder"])
        else:
            _log.info("%s: seed %d (%d of %d)", experiment.name, seed, number, len(config.seeds))
            status = _run([sys.executable, script, *arguments, *_resume_arguments(experiment)])
            if status:
                return status
            results = finished_results(experiment)
        all_results.append(results or {})
    print(summary_of_seeds(str(config.name), all_results))
    return 0


def seed_command(argv: Sequence[str], config: Config, seed: int) -> list[str]:
    """The arguments of one seed's run, from those of the whole command."""
    words = [word.replace("{seed}", str(seed)) for word in argv]
    return [*words, "--seed", str(seed), "--name", f"{config.name}-seed{seed}", "--seeds", "none"]


def _resume_arguments(config: Config) -> list[str]:
    """The option that resumes a run from its last checkpoint, if that belongs to the same experiment.

    Weights of other settings would be reported as results of these settings.

    Raises:
        CheckpointError: the checkpoint is damaged.
    """
    path = checkpoint_dir_of(config) / format_named(config.checkpoint_format).last
    if not path.is_file():
        return []
    from genutil.checkpoint.serialization import (  # imports torch, which takes a while
        checkpoint_info,
        read_checkpoint,
    )

    checkpoint = read_checkpoint(path)
    settings = settings_in(checkpoint)
    changed = differences(settings or {}, run_settings(config).values)
    reason, epoch = None, checkpoint_info(checkpoint, str(path)).epoch
    if settings is None:
        reason = f"{path} does not contain its settings"
    elif changed:
        pairs = ", ".join(f"{key} is {new}, in the file {old}" for key, (old, new) in changed.items())
        reason = f"{path} belongs to another experiment: {pairs}"
    elif has_setting_changes(record_in(checkpoint)):
        reason = f"the training of {path} was resumed from a checkpoint of other settings"
    elif epoch is not None and epoch + 1 >= config.num_epochs:
        if config.record_wiring:
            reason = f"{path} is trained to the end, but its wiring was not recorded"
        elif run_dir_lacking_results(config, read_run_marker(path.parent)) is None:
            reason = f"{path} is trained to the end, but its results are not in {config.log_dir}"
    if reason is None:
        return ["--resume", "auto"]
    _log.info("%s starts from the beginning, since %s", config.name, reason)
    return []


def summary_of_seeds(name: str, results: Sequence[Mapping[str, Any]]) -> str:
    """Mean and sample standard deviation of each accuracy, as a small table for the terminal."""
    lines = [f"{name}, {len(results)} seeds"]
    for key in [key for key in results[0] if key.endswith("_accuracy")]:
        values = [result[key] for result in results if key in result]
        lines.append(f"  {key:<15} {spread(values)} %")
    return "\n".join(lines)


def _run(command: Sequence[str]) -> int:
    """Run a command, which gets the signals that this process gets; 128 + n if signal n ended it.

    It runs in its own session: Ctrl-C in a terminal reaches only this process, so the command gets it once.
    """
    with subprocess.Popen(command, start_new_session=True) as process, _forward_signals(process):
        status = process.wait()
    return status if status >= 0 else 128 - status


@contextmanager
def _forward_signals(process: subprocess.Popen[bytes]) -> Iterator[None]:
    def forward(signum: int, frame: FrameType | None) -> None:
        process.send_signal(signum)

    before = {signum: signal.signal(signum, forward) for signum in stop_signals()}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
