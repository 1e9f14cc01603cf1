"""Several processes that run a function of a test together, as the processes of one run do."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import runner
from genutil.distributed.rank_info import rank_info_from_env
from genutil.distributed.world import join_world
from genutil.exit_codes import exit_process
from tests.conftest import ROOT

_LIMIT = 60.0
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["torch.distributed", "torch._dynamo", "torch.utils.tensorboard", "runner", "experiment", "hypothesis"]
)
"""What a training imports by the end of its first step, and what tests import: once, not in each process."""


def together(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(world, *arguments)` gave in each of `size` processes, or the exception it raised there.

    A process that died without a word gives its exit status as an EOFError.
    """
    return _in_processes(size, _with_world, function, *arguments)


@dataclass
class Ended:
    """How the command ended in one process."""

    status: int
    out: str
    err: str


def run_together(size: int, argv: Sequence[object], folder: Path) -> list[Any]:
    """How `runner.py` with these arguments ended in each of `size` processes, as `torchrun` would start them.

    Args:
        size: number of processes.
        argv: of the command.
        folder: for what they print.
    """
    return _in_processes(size, _command, [str(word) for word in argv], folder)


IS_TORCH_2_6 = torch.__version__ < "2.7"
"""torch 2.6 can deadlock when a process group is destroyed: its threads need the GIL that the call holds."""


def _in_processes(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    if IS_TORCH_2_6:
        pytest.skip("torch 2.6 can deadlock at the end of several processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # where modules to preload are looked for
        ensure_running()
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    pipes, processes = [], []
    for rank in range(size):
        receiving, sending = _CONTEXT.Pipe(duplex=False)
        process = _CONTEXT.Process(target=_run, args=(sending, rank, size, store.port, function, arguments))
        process.start()
        sending.close()
        pipes.append(receiving)
        processes.append(process)
    found = [_receive(pipe, process) for pipe, process in zip(pipes, processes, strict=True)]
    for process in processes:
        process.join(_LIMIT)
    return found


def _receive(pipe: Connection, process: Any) -> Any:
    assert pipe.poll(_LIMIT), "a process of the test hangs"
    try:
        return pickle.loads(pipe.recv_bytes())
    except EOFError:
        process.join(_LIMIT)
        return EOFError(process.exitcode)


def _run(
    pipe: Connection, rank: int, size: int, port: int, function: Callable[..., Any], arguments: Any
) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True",
        GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1",
    )  # fmt: skip
    pipe.send_bytes(pickle.dumps(function(*arguments)))  # by value: this process ends before it is read
    exit_process(0)


def _with_world(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        with join_world(rank_info_from_env(), torch.device("cpu"), _LIMIT) as world:
            return _outcome(function, world, *arguments)
    except Exception as error:
        return error


def _outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """Exceptions are caught within the world: what they leave behind must not keep it from closing."""
    try:
        return function(*arguments)
    except Exception as error:
        traceback.print_exc()
        return error


def _command(argv: list[str], folder: Path) -> Ended:
    texts = []
    rank = os.environ["RANK"]
    for number, name in ((1, "out"), (2, "err")):
        texts.append(folder / f"{rank}.{name}")
        os.dup2(os.open(texts[-1], os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
    status = runner.main(argv)
    sys.stdout.flush()
    out, err = (text.read_text() for text in texts)
    return Ended(status, out, err)


def folders(path):
    return ["--save_dir", path / "checkpoints", "--log_dir", path / "runs"]


def start(app, path, *argv, launcher=("runner.py",), **more):
    """The command in processes of its own, one thread each; `more` is handed on to Popen."""
    command = [sys.executable, *map(str, [*launcher, f"app:{app}", *folders(path), *argv])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"}
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes, **more)


def end_of(process, timeout):
    """What a command printed on (stdout, stderr); if it hangs, the error has the stacks of each process."""
    try:
        return process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        family = [process.pid]
        for pid in family:  # grows
            family += children_of(pid)
        for pid in reversed(family):
            os.kill(pid, signal.SIGABRT)  # faulthandler prints the stacks
        _, errors = process.communicate()
        raise AssertionError(f"it hangs:\n{errors}") from None


def wait_for_line(process, pattern):
    for line in process.stderr:
        if re.search(pattern, line):
            return
    raise AssertionError(f"the run ended without saying {pattern}")


def workers_of(process):
    """Process ids of a launcher's processes, by rank."""
    found = {}
    for pid in children_of(process.pid):
        with contextlib.suppress(OSError):
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            found.update({int(v[5:]): pid for v in variables if v.startswith(b"RANK=")})
    return found


def children_of(pid):
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.name))
    return found
