"""Processes of a run for benchmarks: started once, then told what to do, in turn with others."""

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
"""What a process does when it is told to: gets the message, gives the answer."""


class Group:
    """`size` processes on this machine that wait for messages.

    Args:
        size: how many.
        prepare: called in each with its world and `arguments`; gives its Work.
        threads: of each process.
        arguments: for `prepare`.
    """

    def __init__(self, size: int, prepare: Callable[..., Work], *arguments: Any, threads: int = 1) -> None:
        context = multiprocessing.get_context("spawn")
        self._store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self._pipes, self._processes = [], []
        for rank in range(size):
            here, there = context.Pipe()
            place = (rank, size, self._store.port, threads)
            process = context.Process(target=_serve, args=(there, place, prepare, arguments), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def tell(self, message: Any) -> list[Any]:
        """Give all of them a message; their answers by rank."""
        for pipe in self._pipes:
            pipe.send(message)
        return [pipe.recv() for pipe in self._pipes]

    def close(self) -> None:
        """End them."""
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join()


def _serve(
    pipe: Connection,
    place: tuple[int, int, int, int],
    prepare: Callable[..., Work],
    arguments: tuple[Any, ...],
) -> None:
    rank, size, port, threads = place
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


def in_turn(world: World, seconds: float) -> float:
    """The time of the slowest process."""
    return max(world.gather(seconds))
