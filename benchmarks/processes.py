"""Process groups for benchmarks: started once, then controlled by messages, alternately with others."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

from genutil.distributed.rank_info import rank_info_from_env
from genutil.distributed.world import World, join_world

Work = Callable[[Any], Any]
"""Function of a process: from a message to its result."""


class ProcessPool:
    """`size` processes on this machine that wait for messages.

    Args:
        size: number of processes.
        prepare: called in each with its world and `arguments`; returns its Work.
        threads: of each process.
        arguments: for `prepare`.
    """

    def __init__(self, size: int, prepare: Callable[..., Work], *arguments: Any, threads: int = 1) -> None:
        context = multiprocessing.get_context("spawn")
        self._store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self._pipes, self._processes = [], []
        for rank in range(size):
            pipe, remote_pipe = context.Pipe()
            settings = (rank, size, self._store.port, threads)
            args = (remote_pipe, settings, prepare, arguments)
            process = context.Process(target=_serve, args=args, daemon=True)
            process.start()
            remote_pipe.close()
            self._pipes.append(pipe)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def run(self, message: Any) -> list[Any]:
        """Send a message to all processes. Returns their results by rank."""
        for pipe in self._pipes:
            pipe.send(message)
        return [pipe.recv() for pipe in self._pipes]

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join()


def _serve(
    pipe: Connection,
    settings: tuple[int, int, int, int],
    prepare: Callable[..., Work],
    arguments: tuple[Any, ...],
) -> None:
    rank, size, port, threads = settings
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True",
        OMP_NUM_THREADS=str(threads),
    )  # fmt: skip
    torch.set_num_threads(threads)
    with join_world(rank_info_from_env(), torch.device("cpu"), timeout=600) as world:
        work = prepare(world, *arguments)
        pipe.send("ready")
        while (message := pipe.recv()) is not None:
            pipe.send(work(message))


def slowest(world: World, seconds: float) -> float:
    """The time of the slowest process."""
    return max(world.gather(seconds))
