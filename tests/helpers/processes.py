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
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    pipes, processes = [], []
    for rank in range(size):
        receiving, sending = _CONTEXT.Pipe(duplex=False)
        process = _start(_run, (sending, rank, size, store.port, function, arguments))
        sending.close()
        pipes.append(receiving)
        processes.append(process)
    found = [_receive(pipe, process) for pipe, process in zip(pipes, processes, strict=True)]
    for process in processes:
        process.join(_LIMIT)
    return found


def _start(function: Callable[..., None], arguments: tuple[Any, ...], daemon: bool = False) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # where modules to preload are looked for
        ensure_running()
    process = _CONTEXT.Process(target=function, args=arguments, daemon=daemon)
    process.start()
    return process


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


class ForkedCommand:
    """`runner.py` in a process of its own that has imported everything already: for signals and limits.

    It has the methods of `subprocess.Popen` that tests need.

    Args:
        argv: of the command.
        prepare: called in the process first.
    """

    def __init__(self, argv: Sequence[object], prepare: Callable[[], object] | None = None) -> None:
        receiving, sending = _CONTEXT.Pipe(duplex=False)
        arguments = (sending, [str(word) for word in argv], prepare)
        self._process = _start(_forked_command, arguments, daemon=True)
        sending.close()
        self.stderr = os.fdopen(os.dup(receiving.fileno()))
        receiving.close()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        os.kill(self._process.pid, signum)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Waits for the end; (nothing, what was printed on standard error and not read yet)."""
        text = self.stderr.read()
        self._process.join(timeout)
        assert self.returncode is not None, "the process of the test hangs"
        return "", text


def _forked_command(pipe: Connection, argv: list[str], prepare: Callable[[], object] | None) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number, name, descriptor in ((1, "stdout", nowhere), (2, "stderr", pipe.fileno())):
        os.dup2(descriptor, number)
        setattr(sys, name, os.fdopen(number, "w", buffering=1, closefd=False))
    pipe.close()
    torch.set_num_threads(1)
    if prepare is not None:
        prepare()
    exit_process(runner.main(argv))


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
