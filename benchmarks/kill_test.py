"""Trainings that are killed repeatedly, and the checkpoints that they leave.

    python -m benchmarks.kill_test [--kills N] [--epochs N] [--longest SECONDS] [--seed N] [--threads N]
                                   [--json FILE]

A small run (digits, a graph of 80 nodes) writes last.pt after every step, so that many kills hit it while it
saves. It is started with `--resume auto`, killed by SIGKILL, and started again. Most kills come at a random
time after the first checkpoint of their start, some at a random time after the start itself. After each kill
every checkpoint is read and checked. A finished run is compared with one that was not killed, and the next
run begins, until the number of kills is reached. A run is the command itself, in a process forked after torch
was imported, which saves two seconds per start.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # imports that are not used here are made once, for all processes
import torch.utils.tensorboard

import data.digits  # noqa: F401
import experiment  # noqa: F401
import runner
from benchmarks.report import Report, run
from genutil.checkpoint import read_checkpoint
from genutil.exceptions import CheckpointError
from wirings.checksum import digest

_APP = "apps/quickstart/digits_dnw.yml"
_SMALL = (
    "--dim 80 --downsample_dim 8 --feature_dim 10 --layers 4 --image_size 16 --prune_rate 0.9 --batch_size 64"
)
_KEYS = ("model", "optimizer", "rng", "iter", "best_val")
"""Keys of a checkpoint that must equal those of the undisturbed run."""
_AFTER_A_SAVE = 0.9
"""Fraction of the kills that wait for a checkpoint, so that the runs make progress on a busy machine."""
_ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT
_COUNTED = (
    "kills", "kills while saving", "kills before the first last.pt", "checkpoints read",
    "unreadable checkpoints", "runs that reached their end", "ends that equal the undisturbed run to the bit",
)  # fmt: skip


def start(folder: Path, epochs: int) -> int:
    """Start the command in a process. Returns its id."""
    argv = [
        f"app:{_APP}", *_SMALL.split(), "--num_epochs", str(epochs), "--checkpoint_interval_steps", "1",
        "--name", "killed", "--save_dir", str(folder / "checkpoints"), "--log_dir", str(folder / "runs"),
        "--resume", "auto", "--skip_profiling", "--gpus",
    ]  # fmt: skip
    child = os.fork()
    if child == 0:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, sys.stdout.fileno())
        os.dup2(os.open(folder / "errors", os.O_CREAT | os.O_APPEND | os.O_WRONLY), sys.stderr.fileno())
        os._exit(runner.main(argv))
    return child


def end_of(folder: Path, epochs: int) -> dict[str, Any]:
    """The last checkpoint of a run that is not killed."""
    _, status = os.waitpid(start(folder, epochs), 0)
    if status:
        raise SystemExit(f"the run failed:\n{(folder / 'errors').read_text()[-2000:]}")
    return read_checkpoint(folder / "checkpoints" / "killed" / "last.pt")


def kill_once(folder: Path, epochs: int, longest: float, randomness: random.Random) -> bool:
    """Start, wait, kill. False if the run had finished before."""
    last = folder / "checkpoints" / "killed" / "last.pt"
    before = _written(last)
    child = start(folder, epochs)
    if randomness.random() < _AFTER_A_SAVE:
        while _written(last) == before and os.waitid(os.P_PID, child, _ENDED) is None:
            time.sleep(0.002)
    time.sleep(randomness.uniform(0, longest))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def _written(file: Path) -> tuple[int, int] | None:
    """A value that changes with each writing; None if there is no such file."""
    try:
        stat = file.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def inspect(folder: Path) -> Counter[str]:
    """Count the checkpoints after a kill, readable or not, and whether it interrupted the writing of one."""
    counts: Counter[str] = Counter()
    for path in (folder / "checkpoints").glob("*/*.pt"):
        try:
            read_checkpoint(path)
            counts["checkpoints read"] += 1
        except CheckpointError as error:
            print(error, file=sys.stderr)
            counts["unreadable checkpoints"] += 1
    partial_files = list((folder / "checkpoints").glob("*/.*.partial"))
    counts["kills while saving"] += bool(partial_files)
    counts["kills before the first last.pt"] += not (folder / "checkpoints/killed/last.pt").exists()
    for file in partial_files:
        file.unlink()
    return counts


def reach_end(folder: Path, expected: Mapping[str, Any], counts: Counter[str]) -> None:
    """Let a run finish, compare its end, and remove its files."""
    end = end_of(folder, expected["last_epoch"] + 1)
    same = all(digest(end[key]) == digest(expected[key]) for key in _KEYS)
    counts["runs that reached their end"] += 1
    counts["ends that equal the undisturbed run to the bit"] += same
    shutil.rmtree(folder)
    folder.mkdir()


def measure_kills(options: argparse.Namespace) -> Report:
    torch.set_num_threads(1)  # a forked process would lose other threads
    randomness = random.Random(options.seed)  # noqa: S311
    counts: Counter[str] = Counter()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        killed, undisturbed = Path(name) / "killed", Path(name) / "undisturbed"
        killed.mkdir()
        undisturbed.mkdir()
        expected = end_of(undisturbed, options.epochs)
        while counts["kills"] < options.kills:
            if kill_once(killed, options.epochs, options.longest, randomness):
                counts["kills"] += 1
                counts += inspect(killed)
                if counts["kills"] % 100 == 0:
                    print(f"{counts['kills']} kills, {time.monotonic() - started:.0f} s", file=sys.stderr)
            else:
                reach_end(killed, expected, counts)
        reach_end(killed, expected, counts)
    report = Report(
        f"Runs of {expected['iter']} steps, killed {counts['kills']} times",
        ("what", "count"),
        notes=[f"seed of the times: {options.seed}; at most {options.longest} s"],
    )
    for name in _COUNTED:
        report.add((name, str(counts[name])), what=name, count=counts[name])
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--longest", type=float, default=0.3, help="seconds of the random time, at most")
    parser.add_argument("--seed", type=int, default=0)
    run(measure_kills, parser)
