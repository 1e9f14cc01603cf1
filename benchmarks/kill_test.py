"""Trainings that are killed again and again, and what is left of them.

    python -m benchmarks.kill_test [--kills N] [--epochs N] [--longest SECONDS] [--seed N] [--threads N]
                                   [--json FILE]

A small run (digits, a graph of 80 nodes) writes last.pt after every step, so that many kills hit it while it
saves. It is started with `--resume auto`, killed by SIGKILL, and started again. Most kills come at a random
time after the first checkpoint of their start, some at a random time after the start itself. After each kill
every checkpoint is read and checked. When a run reaches its end, that is compared with the end of a run that
was never disturbed, and the next run begins, until there have been enough kills. A run is the command itself,
in a process that is forked when torch is loaded already, which saves two seconds a start.
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
import torch._dynamo  # all that is not used here is loaded once, for all the processes
import torch.utils.tensorboard

import data.digits  # noqa: F401
import experiment  # noqa: F401
import runner
from benchmarks.report import Report, run
from genutil.checkpoint import read_checkpoint
from genutil.checkpoint.checksum import digest
from genutil.errors import CheckpointError

_APP = "apps/quickstart/digits_dnw.yml"
_SMALL = (
    "--dim 80 --downsample_dim 8 --feature_dim 10 --layers 4 --image_size 16 --prune_rate 0.9 --batch_size 64"
)
_PARTS = ("model", "optimizer", "rng", "iter", "best_val")
"""Of a checkpoint, what must equal that of the undisturbed run."""


_AFTER_A_SAVE = 0.9
"""Part of the kills that wait for a checkpoint, so that the runs get on however busy the machine is."""
_ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT
_COUNTED = (
    "kills", "kills while saving", "kills before the first last.pt", "checkpoints read",
    "unreadable checkpoints", "runs that reached their end", "ends that equal the undisturbed run to the bit",
)  # fmt: skip


def start(folder: Path, epochs: int) -> int:
    """The command in a process of its own; its number."""
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
    """The last checkpoint of a run that is left to finish."""
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
    """Changes with each writing; None where there is no such file."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def look(folder: Path) -> Counter[str]:
    """What a kill has left: checkpoints that can be read or not; whether it came while one was written."""
    found: Counter[str] = Counter()
    for path in (folder / "checkpoints").glob("*/*.pt"):
        try:
            read_checkpoint(path)
            found["checkpoints read"] += 1
        except CheckpointError as error:
            print(error, file=sys.stderr)
            found["unreadable checkpoints"] += 1
    halves = list((folder / "checkpoints").glob("*/.*.partial"))
    found["kills while saving"] += bool(halves)
    found["kills before the first last.pt"] += not (folder / "checkpoints/killed/last.pt").exists()
    for half in halves:
        half.unlink()
    return found


def reach_end(folder: Path, expected: Mapping[str, Any], found: Counter[str]) -> None:
    """Let a run finish, compare its end, and remove its files."""
    end = end_of(folder, expected["last_epoch"] + 1)
    same = all(digest(end[part]) == digest(expected[part]) for part in _PARTS)
    found["runs that reached their end"] += 1
    found["ends that equal the undisturbed run to the bit"] += same
    shutil.rmtree(folder)
    folder.mkdir()


def measure_kills(options: argparse.Namespace) -> Report:
    torch.set_num_threads(1)  # what is forked has no threads to lose
    randomness = random.Random(options.seed)  # noqa: S311
    found: Counter[str] = Counter()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        disturbed, whole = Path(place) / "disturbed", Path(place) / "whole"
        disturbed.mkdir()
        whole.mkdir()
        expected = end_of(whole, options.epochs)
        while found["kills"] < options.kills:
            if kill_once(disturbed, options.epochs, options.longest, randomness):
                found["kills"] += 1
                found += look(disturbed)
                if found["kills"] % 100 == 0:
                    print(f"{found['kills']} kills, {time.monotonic() - began:.0f} s", file=sys.stderr)
            else:
                reach_end(disturbed, expected, found)
        reach_end(disturbed, expected, found)
    report = Report(
        f"Runs of {expected['iter']} steps, killed {found['kills']} times",
        ("what", "count"),
        notes=[f"seed of the times: {options.seed}; at most {options.longest} s"],
    )
    for name in _COUNTED:
        report.add((name, str(found[name])), what=name, count=found[name])
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--longest", type=float, default=0.3, help="seconds of the random time, at most")
    parser.add_argument("--seed", type=int, default=0)
    run(measure_kills, parser)
