"""The processes that train one network together, on one machine or several.

`torchrun`, or this project's own launcher, starts the processes and tells each its number by environment
variables. Process 0 alone writes files and speaks to the user. A run in a single process is a World of one,
for which everything here is a no-op.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import re
import signal
import socket
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from genutil.devices import available_cpus
from genutil.distributed.rank_info import RankInfo
from genutil.errors import USER_ERRORS, RunError
from genutil.signals import STOP_SIGNALS, Interrupted, StopRequest

_Value = TypeVar("_Value")
_COLLECTIVE_ERROR_WORDS = ("gloo", "nccl", "connection closed", "connection reset", "process group")
"""Words in the errors that torch's collectives raise; they have no type of their own."""


@dataclass(frozen=True)
class StepStatus:
    """What all processes know of a step.

    Attributes:
        images: of all processes together.
        signum: the signal that asked one of them to stop; of several, the first in STOP_SIGNALS. None: there
            was none.
    """

    images: int
    signum: int | None


class World:
    """The processes of a run, and what they do together. Each method must be called by all of them.

    Args:
        rank_info: which of them this one is.
        device: where this one calculates.
        store: what all of them can read and write, if there are several.
        control: their group for small messages.
        connections: names of the sockets that lead to the others.
    """

    def __init__(
        self,
        rank_info: RankInfo,
        device: torch.device,
        store: Any = None,
        control: Any = None,
        connections: Collection[str] = (),
    ) -> None:
        self.rank_info, self.device, self.store = rank_info, device, store
        self._control, self._connections = control, connections
        self._launcher = os.getppid()

    @property
    def rank(self) -> int:
        return self.rank_info.rank

    @property
    def size(self) -> int:
        return self.rank_info.size

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and speaks."""
        return self.rank == 0

    def all_reduce_step_status(self, images: int, signum: int | None) -> Callable[[], StepStatus]:
        """Tell the others this process's number of images and the signal it got; the answer tells all of it.

        Returns at once; the answer waits for the slowest process.
        """
        if self.size == 1:
            return lambda: StepStatus(images, signum)
        # Without its launcher nobody would notice a failure of this process, or could stop it.
        alone = signum is None and os.getppid() != self._launcher
        numbers = torch.tensor([images, *(signum == known for known in STOP_SIGNALS), alone])
        work = dist.all_reduce(numbers, group=self._control, async_op=True)

        @functools.cache
        def answer() -> StepStatus:
            work.wait()
            total, *counts = numbers.tolist()
            asked = [*STOP_SIGNALS, signal.SIGTERM]
            return StepStatus(total, next((int(s) for s, n in zip(asked, counts, strict=True) if n), None))

        return answer

    def raise_if_stopped(self, stop: StopRequest) -> None:
        """End the run where a signal has asked any of the processes to stop.

        Raises:
            Interrupted: on all processes.
        """
        signum = self.all_reduce_step_status(0, stop.signum)().signum
        if signum is not None:
            raise Interrupted(signum)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, on the CPU. Integers and sums of the same order are exact."""
        values = values.detach().cpu().clone()
        if self.size > 1:
            dist.all_reduce(values, group=self._control)
        return values

    def gather(self, value: _Value) -> list[_Value]:
        """The values of all processes, in the order of their ranks."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self._control)
        return found

    def broadcast_from_main(self, make: Callable[[], _Value]) -> _Value:
        """What `make` gives on process 0, which alone calls it.

        Raises:
            UserError: on all processes, the one that `make` raised.
        """
        answer = [self.run_on_main(make)]
        if self.size > 1:
            dist.broadcast_object_list(answer, src=0, group=self._control)
        value: Any = answer[0]
        return value  # type: ignore[no-any-return]

    def run_on_main(self, make: Callable[[], _Value]) -> _Value | None:
        """`make()` on process 0; None on the others, which wait for it.

        Raises:
            UserError: on all processes, the one that `make` raised.
        """
        value: _Value | None = None
        failure: list[Any] = [None]
        if self.is_main:
            try:
                value = make()
            except USER_ERRORS as error:
                failure[0] = error
        if self.size > 1:
            dist.broadcast_object_list(failure, src=0, group=self._control)
        if failure[0] is not None:
            raise failure[0]
        return value

    def broadcast_buffers(self, network: nn.Module) -> None:
        """Give all processes the buffers of process 0, such as the running means of batch norms."""
        if self.size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)

    def barrier(self) -> None:
        """For all processes to come here."""
        if self.size > 1:
            dist.barrier(group=self._control)

    def abort_connections(self) -> None:
        """Cut the connections, so that whoever waits for this process gets an error at once.

        torch closes them only when nothing refers to them any more, which after an error is hard to know.
        Those between GPUs stay: only the launcher can end a process that waits for a GPU.
        """
        for number, name in _open_sockets().items():
            if name in self._connections:
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
                    connection.getpeername()  # an error for those that only listen
                    connection.shutdown(socket.SHUT_RDWR)


ALONE = World(RankInfo(), torch.device("cpu"))
"""A run in a single process, on the CPU."""


@contextlib.contextmanager
def join_world(rank_info: RankInfo | None, device: torch.device, timeout: float) -> Iterator[World]:
    """Meet the other processes of the run.

    Args:
        rank_info: of this process; None: it is alone.
        device: where it calculates: messages between GPUs go by NCCL, between CPUs by gloo.
        timeout: seconds after which a process that does not answer counts as lost.

    Raises:
        RunError: the others did not come.
    """
    if rank_info is None or rank_info.size == 1:
        yield World(rank_info or RankInfo(), device)
        return
    limit = datetime.timedelta(seconds=timeout)
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, available_cpus() // rank_info.local_size))
    try:
        meet = cast(Any, dist).rendezvous
        store, rank, size = next(meet("env://", timeout=limit))
        # The launcher's store outlives a restart: an earlier start's addresses must not be found in it.
        store = cast(Any, dist).PrefixStore(f"start/{rank_info.restarts}", store)
        others = set(_open_sockets().values())
        # Between GPUs twice the time, since an overrun there ends the process without a word.
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=size, timeout=limit * (1 + (backend == "nccl"))
        )
        # A second group for small messages, so that they never wait for gradients or for a GPU.
        control = dist.new_group(backend="gloo", timeout=limit)
        world = World(rank_info, device, store, control, set(_open_sockets().values()) - others)
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"process {rank_info.rank} of {rank_info.size} could not meet the others ({short_message(error)})"
        ) from error
    yield world
    dist.destroy_process_group()  # not after a failure: it may wait for messages that never come


def _open_sockets() -> dict[int, str]:
    """This process's sockets, names by file number; none where the system does not tell (it is not Linux)."""
    found = {}
    with contextlib.suppress(OSError):
        for entry in os.scandir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                name = os.readlink(entry.path)
                if name.startswith("socket:"):
                    found[int(entry.name)] = name
    return found


def short_message(error: BaseException) -> str:
    """What a collective's error says, without the position in torch's source and its advice."""
    line = str(error).strip().partition("\n")[0]
    return re.sub(r"^.*?\[[^]]*\.cc:\d+\] *|\. This is typically.*$", "", line)


def is_peer_failure(error: BaseException) -> bool:
    """Whether an exception says that messages to other processes failed: a hint at another's failure."""
    return isinstance(error, RuntimeError) and any(
        word in str(error).lower() for word in _COLLECTIVE_ERROR_WORDS
    )
