"""What the processes of a run do together, and which process reports what happened when one of them fails."""

import os
import signal
import threading

import pytest
import torch
from torch import nn

from genutil.distributed.failures import error_to_report
from genutil.distributed.rank_info import RankInfo
from genutil.distributed.world import ALONE, StepStatus, World, is_peer_failure, short_message
from genutil.exceptions import ReportedByOtherRank, RunError, UserError
from tests.helpers.processes import together


def talk(world):
    """Every message once."""
    signums = [None, signal.SIGTERM, None]
    answers = [
        world.all_reduce_step_status(10 * world.rank, signums[world.rank])(),
        world.all_reduce_step_status(1, signal.SIGINT if world.rank == 0 else None)(),
        world.all_reduce_step_status(1, signal.SIGHUP if world.rank == 2 else None)(),
        world.all_reduce_step_status(1, signal.SIGUSR1 if world.rank == 1 else None)(),
        world.all_reduce_step_status(1, (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)[world.rank])(),
        world.all_reduce_step_status(world.rank, None)(),
    ]
    buffers = nn.BatchNorm2d(2)
    buffers.running_mean.fill_(world.rank + 5)
    world.broadcast_buffers(buffers)
    return {
        "answers": answers,
        "sum": world.sum(torch.tensor([world.rank, 2**40 + 1])).tolist(),
        "gather": world.gather(f"process {world.rank}"),
        "broadcast_from_main": world.broadcast_from_main(lambda: {"rank": world.rank}),
        "run_on_main": world.run_on_main(lambda: world.rank),
        "buffers": buffers.running_mean.tolist(),
        "is_main": world.is_main,
    }


def test_messages_between_three_processes():
    found = together(3, talk)
    for rank, answer in enumerate(found):
        assert answer["answers"] == [
            StepStatus(30, signal.SIGTERM), StepStatus(3, signal.SIGINT), StepStatus(3, signal.SIGHUP),
            StepStatus(3, signal.SIGUSR1), StepStatus(3, signal.SIGUSR1), StepStatus(3, None),
        ]  # fmt: skip
        assert answer["sum"] == [3, 3 * (2**40 + 1)]
        assert answer["gather"] == ["process 0", "process 1", "process 2"]
        assert answer["broadcast_from_main"] == {"rank": 0}
        assert answer["run_on_main"] == (0 if rank == 0 else None)
        assert answer["buffers"] == [5, 5]
        assert answer["is_main"] == (rank == 0)


def test_a_world_of_one_needs_nobody():
    assert ALONE.all_reduce_step_status(7, signal.SIGINT)() == StepStatus(7, signal.SIGINT)
    assert ALONE.sum(torch.tensor([3])).tolist() == ALONE.gather(3) == [3]
    assert ALONE.broadcast_from_main(lambda: 4) == ALONE.run_on_main(lambda: 4) == 4
    error = ValueError("mine")
    assert error_to_report(ALONE, error) is error


def refuse(world, method):
    def make():
        raise UserError("there is no such file")

    return getattr(world, method)(make)


@pytest.mark.parametrize("method", ["broadcast_from_main", "run_on_main"])
def test_what_the_first_refuses_all_refuse(method):
    for error in together(2, refuse, method):
        assert isinstance(error, UserError)
        assert str(error) == "there is no such file"


def fail(world, errors):
    """Each process raises its own error, or waits for the others in vain."""
    world.barrier()
    try:
        if world.rank in errors:
            raise errors[world.rank]
        while True:
            world.barrier()
    except Exception as error:
        return error_to_report(world, error)


def test_an_error_of_one_process_is_reported_by_it():
    first, second, third = together(3, fail, {1: UserError("cat.jpg: cannot be read")})
    assert type(second) is UserError
    assert str(second) == "process 1 of 3: cat.jpg: cannot be read"
    assert isinstance(first, ReportedByOtherRank) and isinstance(third, ReportedByOtherRank)
    assert first.status == third.status == 2


def test_an_error_of_all_processes_is_reported_once():
    errors = {rank: UserError(f"too many layers, says {rank}") for rank in range(2)}
    first, second = together(2, fail, errors)
    assert str(first) == "too many layers, says 0"
    assert isinstance(second, ReportedByOtherRank)


def test_a_bug_in_one_process_is_reported_with_its_traceback():
    first, second = together(2, fail, {1: KeyError("weight")})
    assert type(second) is RunError
    assert "process 1 of 2: Traceback" in str(second)
    assert "KeyError: 'weight'" in str(second)
    assert (type(first), first.status) == (ReportedByOtherRank, 1)


def disappear(world, lost):
    world.barrier()
    try:
        if world.rank == lost:
            os.kill(os.getpid(), signal.SIGKILL)
        while True:
            world.barrier()
    except Exception as error:
        return error_to_report(world, error)


class SilentStore:
    """Takes a call and never answers, as one on a machine behind a cut link."""

    def __init__(self):
        self.end = threading.Event()

    def set(self, key, value):
        self.end.wait()
        raise RuntimeError("too late")


@pytest.mark.parametrize("own", [UserError("cat.jpg: cannot be read"), RuntimeError("gloo: timed out")])
def test_a_store_that_never_answers_does_not_hang_a_failure(monkeypatch, own):
    """A mistake of this process is still reported, and so is a loss of the others."""
    monkeypatch.setattr("genutil.distributed.failures._LONGEST", 0.1)
    store = SilentStore()
    found = error_to_report(World(RankInfo(rank=1, size=2), torch.device("cpu"), store), own)
    store.end.set()
    if isinstance(own, UserError):
        assert found is own
    else:
        assert isinstance(found, RunError)
        assert "the connections between the 2 processes broke (gloo: timed out)" in str(found)


@pytest.mark.parametrize(("lost", "speaker"), [pytest.param(1, 0, marks=pytest.mark.slow), (0, 1)])
def test_a_lost_process_is_named_once(lost, speaker):
    found = together(3, disappear, lost)
    assert isinstance(found[lost], EOFError) and found[lost].args == (-signal.SIGKILL,)
    assert type(found[speaker]) is RunError
    assert f"process {lost} is gone or hung, of 3" in str(found[speaker])
    assert "resume with --resume auto" in str(found[speaker])
    assert isinstance(found[2], ReportedByOtherRank)


def outlive_the_launcher(world):
    world._launcher = -1
    first = world.all_reduce_step_status(1, None)()
    second = world.all_reduce_step_status(1, signal.SIGHUP if world.rank else None)()
    return first.signum, second.signum


def test_processes_without_their_launcher_stop():
    """And report a signal that really came, where there was one."""
    assert together(2, outlive_the_launcher) == [(signal.SIGTERM, signal.SIGHUP)] * 2


def test_errors_of_collectives_are_known_and_shortened():
    text = "[/src/gloo/transport/tcp/pair.cc:545] Read error [10.0.0.2]:985: Connection reset by peer"
    error = RuntimeError(f"{text}. This is typically caused by something. Check it.\nmore")
    assert is_peer_failure(error)
    assert short_message(error) == "Read error [10.0.0.2]:985: Connection reset by peer"
    assert not is_peer_failure(RuntimeError("shapes do not fit"))
    assert not is_peer_failure(UserError("gloo"))


def test_a_killed_loader_of_a_user_s_own_is_reported_without_a_traceback():
    error = error_to_report(ALONE, RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "))
    assert type(error) is RunError
    assert str(error).startswith(
        "a loading process was killed (DataLoader worker (pid 7) is killed by signal"
    )
