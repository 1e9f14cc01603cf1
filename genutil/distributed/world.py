"""World: the processes that train one network together, on one machine or several.

`torchrun`, or this project's own launcher, starts the processes and gives each its rank in environment
variables. Only rank 0 writes files and logs. A run in a single process is a World of size 1, for which
everything here is a no-op.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from genutil.devices import available_cpus
from genutil.distributed.rank_info import RankInfo
from genutil.exceptions import USER_ERRORS, RunError
from genutil.signals import STOP_SIGNALS, Interrupted, StopRequest

_Value = TypeVar("_Value")
_COLLECTIVE_ERROR_WORDS = ("gloo", "nccl", "connection closed", "connection reset", "process group")
"""Words in the errors that torch's collectives raise; they have no type of their own."""


@dataclass(frozen=True)
class StepStatus:
    """Number of images and stop signal of a step, over all processes.

    Attributes:
        images: sum over the processes.
        signum: the signal that asked one of them to stop; of several, the first in STOP_SIGNALS. None: there
            was none.
    """

    images: int
    signum: int | None


class World:
    """The processes of a run and their collective operations. All processes must call each of the methods.

    Args:
        rank_info: rank of this process.
        device: device of this process.
        store: the key-value store of all processes, if there are several.
        control: their process group for small messages.
    """

    def __init__(
        self,
        rank_info: RankInfo,
        device: torch.device,
        store: Any = None,
        control: Any = None,
    ) -> None:
        self.rank_info, self.device, self.store = rank_info, device, store
        self._control = control
        self._launcher = os.getppid()

    @property
    def rank(self) -> int:
        return self.rank_info.rank

    @property
    def size(self) -> int:
        return self.rank_info.size

    @property
    def is_main(self) -> bool:
        """True on rank 0, the only rank that writes files and logs."""
        return self.rank == 0

    def all_reduce_step_status(self, images: int, signum: int | None) -> Callable[[], StepStatus]:
        """Start an asynchronous all-reduce of the number of images and the pending signal.

        Returns at once. The function that it returns waits for the result.
        """
        if self.size == 1:
            return lambda: StepStatus(images, signum)
        # Without its launcher nothing could notice a failure of this process, or stop it.
        is_orphan = signum is None and os.getppid() != self._launcher
        numbers = torch.tensor([images, *(signum == known for known in STOP_SIGNALS), is_orphan])
        work = dist.all_reduce(numbers, group=self._control, async_op=True)

        @functools.cache
        def wait() -> StepStatus:
            work.wait()
            total, *counts = numbers.tolist()
            signals = [*STOP_SIGNALS, signal.SIGTERM]
            return StepStatus(total, next((int(s) for s, n in zip(signals, counts, strict=True) if n), None))

        return wait

    def raise_if_stopped(self, stop: StopRequest) -> None:
        """Stop all processes if any of them got a stop signal.

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
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._control)
        return values

    def broadcast_from_main(self, make: Callable[[], _Value]) -> _Value:
        """Call `make` only on rank 0; returns its result on all ranks.

        Raises:
            UserError: on all ranks, the one that `make` raised.
        """
        values: list[Any] = [self.run_on_main(make)]
        if self.size > 1:
            dist.broadcast_object_list(values, src=0, group=self._control)
        return values[0]  # type: ignore[no-any-return]

    def run_on_main(self, make: Callable[[], _Value]) -> _Value | None:
        """Call `make` on rank 0 and return its result; the other ranks wait and return None.

        Raises:
            UserError: on all ranks, the one that `make` raised.
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
        """Broadcast the buffers of rank 0, such as the running means of batch norms."""
        if self.size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)

    def barrier(self) -> None:
        """Barrier across all ranks."""
        if self.size > 1:
            dist.barrier(group=self._control)


ALONE = World(RankInfo(), torch.device("cpu"))
"""The world of a single process on the CPU."""


@contextlib.contextmanager
def join_world(rank_info: RankInfo | None, device: torch.device, timeout: float) -> Iterator[World]:
    """Connect to the other processes of the run.

    Args:
        rank_info: of this process; None: it is the only one.
        device: its device: GPUs use NCCL, CPUs gloo.
        timeout: seconds after which a process that does not answer counts as lost.

    Raises:
        RunError: the other processes could not be reached.
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
        store, rank, size = next(cast(Any, dist).rendezvous("env://", timeout=limit))
        # The launcher's store outlives a restart: an earlier start's addresses must not be found in it.
        store = cast(Any, dist).PrefixStore(f"start/{rank_info.restarts}", store)
        # Between GPUs twice the time, since NCCL ends the process without a message when it is over.
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=size, timeout=limit * (1 + (backend == "nccl"))
        )
        # A second group for small messages, so that they never wait for gradients or for a GPU.
        control = dist.new_group(backend="gloo", timeout=limit)
        world = World(rank_info, device, store, control)
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"process {rank_info.rank} of {rank_info.size} could not connect to the others "
            f"({short_message(error)})"
        ) from error
    yield world
    dist.destroy_process_group()  # not after a failure: it may wait for lost processes


def short_message(error: BaseException) -> str:
    """The message of a collective's error, without the position in torch's source and torch's advice."""
    line = str(error).strip().partition("\n")[0]
    return re.sub(r"^.*?\[[^]]*\.cc:\d+\] *|\. This is typically.*$", "", line)


def is_peer_failure(error: BaseException) -> bool:
    """Whether an exception says that a collective failed, most often since another process did."""
    return isinstance(error, RuntimeError) and any(
        word in str(error).lower() for word in _COLLECTIVE_ERROR_WORDS
    )
