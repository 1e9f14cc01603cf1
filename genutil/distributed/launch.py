"""Launcher: starts the processes of a run on this machine, and restarts them after a failure.

It uses PyTorch's elastic agent, as `torchrun` does. On several machines, `torchrun` starts `runner.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from genutil.config import Config
from genutil.devices import select_gpus
from genutil.distributed.rank_info import RankInfo, check_batch_size, rank_info_from_env
from genutil.exceptions import USER_ERRORS, ConfigError, ReportedByOtherRank
from genutil.signals import STOP_SIGNALS, stop_signals

_STATUS = "WIRINGS_STATUS_FILE"
_USER_ERROR = 2
_log = logging.getLogger(__name__)
_QUIET = 10.0
"""Seconds that a process which reports nothing waits for torchrun to end it."""
_GRACE = 120
"""Seconds for a step and a checkpoint, from the request to stop until the processes are killed."""


def processes_to_start(config: Config) -> int | None:
    """Number of processes to start; None: this process runs the experiment itself.

    Raises:
        ConfigError: the batch size is not a multiple of the number of processes, a GPU is not available, or
            torchrun has started another number of processes.
    """
    rank_info = rank_info_from_env()
    if rank_info is not None:
        if _STATUS not in os.environ:
            _check_torchrun_launch(config, rank_info)
        return None
    count = config.processes or max(len(config.gpus or []), 1)
    if count > 1 and not config.processes:
        select_gpus(config.gpus, dict(os.environ))  # checks them; each process selects its own
        import torch

        if not torch.cuda.is_available():
            count = 1  # choose_device warns
    if not config.evaluate:
        check_batch_size(config.batch_size, count, config.accumulate)
    return count if count > 1 or config.max_restarts else None


@dataclass(frozen=True)
class Cluster:
    """The machines of a run, each of which starts its own processes.

    Attributes:
        count: machines.
        rank: number of this one, from 0.
        address, port: where the processes meet, on machine 0.
    """

    count: int
    rank: int
    address: str
    port: int


def launch(
    script: str, argv: Sequence[str], count: int, max_restarts: int, machines: Cluster | None = None
) -> int:
    """Run a command in `count` processes until it ends; returns its exit status.

    Args:
        script: the command's file.
        argv: the command's arguments.
        count: processes on this machine.
        max_restarts: how often all of them are restarted when one fails. Errors of the user cause no restart.
        machines: None: this machine only.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the processes report errors themselves
    settings = {"shutdown_timeout": _GRACE, "signals_to_handle": "SIGTERM,SIGINT,SIGQUIT"}
    newer: dict[str, Any] = {
        name: value for name, value in settings.items() if _has_field(LaunchConfig, name)
    }
    with (
        _worker_environment(alone=machines is None) as status,
        _preserve_handlers(),
        _forward_signals_to_workers(SignalException),
    ):
        agent = LaunchConfig(
            nproc_per_node=count, max_restarts=max_restarts, monitor_interval=0.1,
            # By default the agent makes a folder and does not remove it.
            logs_specs=DefaultLogsSpecs(log_dir=str(status.parent / "logs")),
            **_rendezvous_config(machines), **newer,
        )  # fmt: skip
        try:
            elastic_launch(agent, sys.executable)(script, *argv)
        except SignalException as stopped:
            return 128 + int(stopped.sigval)
        except ChildFailedError as error:
            return _exit_status(error)
        return int(status.read_text()) if status.exists() else 0


def _rendezvous_config(machines: Cluster | None) -> dict[str, Any]:
    """Rendezvous of the launchers of all machines, as arguments of LaunchConfig."""
    if machines is None:
        return {
            "min_nodes": 1, "max_nodes": 1, "run_id": f"wirings-{os.getpid()}", "rdzv_backend": "c10d",
            "rdzv_endpoint": "127.0.0.1:0", "local_addr": "127.0.0.1",
        }  # fmt: skip
    return {
        "min_nodes": machines.count, "max_nodes": machines.count, "run_id": "wirings",
        "rdzv_backend": "static", "rdzv_endpoint": f"{machines.address}:{machines.port}",
        "rdzv_configs": {"rank": machines.rank},
    }  # fmt: skip


@contextmanager
def reported_by_first_rank(rank_info: RankInfo | None) -> Iterator[None]:
    """Context manager for work that all ranks repeat before they connect: only rank 0 reports an error.

    Raises:
        ReportedByOtherRank: on all other ranks, an error of the user.
    """
    try:
        yield
    except USER_ERRORS as error:
        if rank_info is None or rank_info.rank == 0:
            raise
        raise ReportedByOtherRank(_USER_ERROR) from error


def is_under_torchrun() -> bool:
    """Whether `torchrun` itself has started this process, not `launch`."""
    return "TORCHELASTIC_RUN_ID" in os.environ and _STATUS not in os.environ


def wait_for_torchrun(seconds: float = _QUIET) -> None:
    """Under torchrun, wait to be ended after another process has failed.

    torchrun ends all processes of a machine as soon as one exits with a failure. A process that leaves the
    report to another one must not exit first.
    """
    if is_under_torchrun():
        sys.stderr.flush()
        time.sleep(seconds)


def write_torchrun_error(message: str) -> None:
    """Under torchrun, write the message to the error file that torchrun shows in its own report."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is None or not is_under_torchrun():
        return
    details = {"py_callstack": message, "timestamp": str(int(time.time()))}
    report = {"message": {"message": message, "extraInfo": details}}
    with contextlib.suppress(OSError):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(report), encoding="utf-8")


def worker_status(status: int) -> int:
    """Exit status of this process. An error of the user is written to the launcher's file: no restart."""
    file = os.environ.get(_STATUS)
    if file is None or status != _USER_ERROR:
        return status
    Path(file).write_text(str(status))
    return 0


def _check_torchrun_launch(config: Config, rank_info: RankInfo) -> None:
    """Check keys that torchrun's own options decide."""
    if config.processes not in (None, rank_info.size):
        raise ConfigError(
            f"processes: {config.processes} does not match the {rank_info.size} processes that torchrun "
            "started; remove it"
        )
    if config.max_restarts:
        _log.warning("max_restarts has no effect under torchrun; give torchrun --max-restarts")


def _exit_status(error: object) -> int:
    """Exit status of the first failed rank; prints the signals that killed processes."""
    failures: dict[int, object] = getattr(error, "failures", {})
    codes = {rank: int(getattr(failure, "exitcode", 1)) for rank, failure in sorted(failures.items())}
    for rank, code in codes.items():
        if code < 0 and code != -signal.SIGTERM:
            print(f"process {rank} was ended by {signal.Signals(-code).name}", file=sys.stderr)
    return next((code for code in codes.values() if code > 0), 1)


@contextmanager
def _worker_environment(alone: bool) -> Iterator[Path]:
    """Set the environment variables of the processes; yields the file for their exit status."""
    interfaces = [name for _, name in socket.if_nameindex()]
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        status = Path(folder) / "status"
        os.environ[_STATUS] = str(status)
        if alone and "lo" in interfaces:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are on this machine
        try:
            yield status
        finally:
            os.environ.clear()
            os.environ.update(before)


@contextmanager
def _preserve_handlers() -> Iterator[None]:
    """Restore the signal handlers that the agent replaces."""
    handled = (*STOP_SIGNALS, signal.SIGQUIT)
    before = {signum: signal.getsignal(signum) for signum in handled}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def _forward_signals_to_workers(error: Callable[..., BaseException]) -> Iterator[None]:
    """Context in which the agent forwards SIGHUP and SIGUSR1 to its processes and waits for them.

    The agent's own handlers would also react to a SIGHUP that `nohup` ignores, and end the agent at a second
    one; the shell and the system may both send one.

    Args:
        error: the agent's exception for a signal.
    """
    received: list[int] = []

    def forward(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        if len(received) == 1:
            raise error(f"stopped by {signal.Signals(signum).name}", signal.Signals(signum))

    for signum in stop_signals():
        if signum not in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, forward)
    yield


def _has_field(cls: type, name: str) -> bool:
    return name in {field.name for field in dataclasses.fields(cls)}
