"""Starting the processes of a run on this machine, and starting them anew when one is lost.

The work is done by PyTorch's elastic agent, the same that `torchrun` uses; for several machines, `torchrun`
itself starts `runner.py`.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genutil.config import Config
from genutil.devices import select_gpus
from genutil.errors import ConfigError
from genutil.place import Place, check_batch_size, find_place

_STATUS = "WIRINGS_STATUS_FILE"
_USER_ERROR = 2
_log = logging.getLogger(__name__)
_GRACE = 120
"""Seconds for a step and a checkpoint, from the request to stop until the processes are killed."""


def processes_to_start(config: Config) -> int | None:
    """How many processes this run needs; None: this process itself can run it.

    Raises:
        ConfigError: the batch cannot be shared evenly, a GPU is not offered, or torchrun has started another
            number of processes.
    """
    place = find_place()
    if place is not None:
        if _STATUS not in os.environ:
            _check_foreign_launch(config, place)
        return None
    count = config.processes or max(len(config.gpus or []), 1)
    if count > 1 and not config.processes:
        select_gpus(config.gpus, dict(os.environ))  # refuses; each process selects for itself
        import torch

        if not torch.cuda.is_available():
            count = 1  # a warning comes when the device is chosen
    if not config.evaluate:
        check_batch_size(config.batch_size, count, config.accumulate)
    return count if count > 1 or config.max_restarts else None


@dataclass(frozen=True)
class Machines:
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
    script: str, argv: Sequence[str], count: int, max_restarts: int, machines: Machines | None = None
) -> int:
    """Run a command in `count` processes until it ends; returns its exit status.

    Args:
        script: the command's file.
        argv: the command's arguments.
        count: processes on this machine.
        max_restarts: how often all of them are started anew when one fails. Mistakes of the user's are no
            such failures.
        machines: None: this machine alone.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the processes tell what users need to know
    newer: dict[str, Any] = (
        {"shutdown_timeout": _GRACE} if _has_field(LaunchConfig, "shutdown_timeout") else {}
    )
    with _told_to_workers(alone=machines is None) as status, _handlers_kept():
        agent = LaunchConfig(
            nproc_per_node=count, max_restarts=max_restarts, monitor_interval=0.1,
            # Else the agent makes a folder that stays.
            logs_specs=DefaultLogsSpecs(log_dir=str(status.parent / "logs")),
            **_meeting(machines), **newer,
        )  # fmt: skip
        try:
            elastic_launch(agent, sys.executable)(script, *argv)
        except SignalException as stopped:
            return 128 + int(stopped.sigval)
        except ChildFailedError as error:
            return _exit_status(error)
        return int(status.read_text()) if status.exists() else 0


def _meeting(machines: Machines | None) -> dict[str, Any]:
    """Where and how the launchers of all machines find each other."""
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


def worker_status(status: int) -> int:
    """The status to exit with. A mistake of the user's is noted for the launcher, which then gives up."""
    note = os.environ.get(_STATUS)
    if note is None or status != _USER_ERROR or find_place() is None:
        return status
    Path(note).write_text(str(status))
    return 0


def _check_foreign_launch(config: Config, place: Place) -> None:
    """torchrun has the last word on processes and restarts."""
    if config.processes not in (None, place.size):
        raise ConfigError(
            f"processes: {config.processes} asked for, but {place.size} were started; leave it out"
        )
    if config.max_restarts:
        _log.warning("max_restarts has no effect under torchrun; give torchrun --max-restarts")


def _exit_status(error: object) -> int:
    """The first failure's status; signals that nobody could tell of are told."""
    failures: dict[int, object] = getattr(error, "failures", {})
    codes = {rank: int(getattr(failure, "exitcode", 1)) for rank, failure in sorted(failures.items())}
    for rank, code in codes.items():
        if code < 0 and code != -signal.SIGTERM:
            print(f"process {rank} was ended by {signal.Signals(-code).name}", file=sys.stderr)
    return next((code for code in codes.values() if code > 0), 1)


@contextmanager
def _told_to_workers(alone: bool) -> Iterator[Path]:
    """What the processes find in their environment; gives the file for their status."""
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
def _handlers_kept() -> Iterator[None]:
    """The agent sets signal handlers and leaves them."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _has_field(kind: type, name: str) -> bool:
    return name in {field.name for field in dataclasses.fields(kind)}
