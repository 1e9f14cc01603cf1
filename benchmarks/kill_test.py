"""A training that is killed again and again, and what is left of it.

    python -m benchmarks.kill_test [--kills N] [--epochs N] [--seed N] [--threads N] [--json FILE]

A small run (digits, a graph of 80 nodes) writes last.pt after every step, so that many kills hit it while it
saves. It is started with `--resume auto`, killed by SIGKILL after a random time, and started again; after
each kill every checkpoint is read and checked. When it has been killed often enough it may finish, and its
end is compared with that of a run that was never disturbed. A run is the command itself, in a process that is
forked when torch is loaded already, which saves two seconds a start.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
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
from genutil.checksum import digest
from genutil.errors import CheckpointError

_APP = "apps/quickstart/digits_dnw.yml"
_SMALL = (
    "--dim 80 --downsample_dim 8 --feature_dim 10 --layers 4 --image_size 16 --prune_rate 0.9 --batch_size 64"
)
_LONGEST = 0.8
"""Seconds from a start to the kill, at most; the random part begins when the process does."""


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


def kill_once(folder: Path, epochs: int, seconds: float) -> bool:
    """Start, wait, kill. False if the run had finished before."""
    child = start(folder, epochs)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


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


def measure_kills(options: argparse.Namespace) -> Report:
    torch.set_num_threads(1)  # what is forked has no threads to lose
    randomness = random.Random(options.seed)  # noqa: S311
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        disturbed, whole = Path(place) / "disturbed", Path(place) / "whole"
        disturbed.mkdir()
        whole.mkdir()
        expected = end_of(whole, options.epochs)
        while found["kills"] < options.kills:
            if not kill_once(disturbed, options.epochs, randomness.uniform(0.02, _LONGEST)):
                raise SystemExit(f"the run finished after {found['kills']} kills; give it more --epochs")
            found["kills"] += 1
            found += look(disturbed)
        last = disturbed / "checkpoints" / "killed" / "last.pt"
        at_last_kill = read_checkpoint(last)["iter"] if last.exists() else 0
        end = end_of(disturbed, options.epochs)
    parts = ("model", "optimizer", "rng", "iter", "best_val")
    same = [part for part in parts if digest(end[part]) == digest(expected[part])]
    report = Report(
        f"A run of {expected['iter']} steps, killed {found['kills']} times",
        ("what", "count"),
        notes=[f"seed of the times: {options.seed}; steps done at the last kill: {at_last_kill}"],
    )
    shown = ("kills", "kills while saving", "kills before the first last.pt", "checkpoints read")
    for name in (*shown, "unreadable checkpoints"):
        report.add((name, str(found[name])), what=name, count=found[name])
    equal = "yes, to the bit" if len(same) == len(parts) else f"no: {set(parts) - set(same)}"
    report.add(
        ("the end equals that of the undisturbed run", equal), what="equal", count=len(same) == len(parts)
    )
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=220)
    parser.add_argument("--seed", type=int, default=0)
    run(measure_kills, parser)
