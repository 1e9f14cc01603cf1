"""Failures of distributed runs: the processes agree on one of them to report what happened.

A process with an error of its own reports it and exits. Its connections close with it, so that the others get
errors from their collectives; they find the report in the run's store and exit without a message.
"""

from __future__ import annotations

import json
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from genutil.distributed.world import World, is_peer_failure, short_message
from genutil.exceptions import USER_ERRORS, ReportedByOtherRank, RunError, UserError

_HEAD_START = 0.5
"""Seconds that a process waits for an error of a lower rank: the same error may occur in all of them."""
_GRACE = 8.0
"""Seconds to wait for the reports of other processes; those without one are lost."""
_LONGEST = 3 * _GRACE
"""Seconds for the whole exchange: a call to the store has no time limit of its own, and there is no answer
from a machine that cannot be reached."""
_Reports = dict[int, dict[str, Any]]
"""By rank: whether the error is the process's own, and the exit status."""


def error_to_report(world: World, error: Exception) -> Exception:
    """The exception that this process should end with, after the processes have compared their errors.

    One process gets the cause: its own error (of lowest rank, if several processes have one), or the ranks of
    the processes that are lost. All others get a ReportedByOtherRank.
    """
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        error = RunError(
            f"a loading process was killed ({short_message(error)}); most often memory is too small, or in a "
            "container shared memory (`docker run --shm-size 8g`)"
        )
    if world.size == 1:
        return error
    result: list[Exception] = []
    exchange = threading.Thread(target=lambda: result.append(_compared(world, error)), daemon=True)
    exchange.start()
    exchange.join(_LONGEST)
    return result[0] if result else _without_store(world, error)


def _compared(world: World, error: Exception) -> Exception:
    """`error_to_report` from the reports of all processes that can be reached."""
    is_own = not is_peer_failure(error)
    status = 2 if isinstance(error, USER_ERRORS) else 1
    try:
        world.store.set(f"failed/{world.rank}", json.dumps({"own": is_own, "status": status}))
        if is_own:
            reports = _collect(world, _HEAD_START, lambda reports: _cause(reports) == 0)
        else:
            reports = _collect(world, _GRACE, lambda reports: _cause(reports) is not None)
        cause = _cause(reports)
        if not _claims_report(world, min(reports) if cause is None else cause):
            return ReportedByOtherRank(1 if cause is None else reports[cause]["status"])
    except RuntimeError:  # the store is gone, with the process or machine that kept it
        return _without_store(world, error)
    return _with_rank(world, error) if is_own else _lost(world, reports, error)


def _collect(world: World, seconds: float, is_enough: Callable[[_Reports], bool]) -> _Reports:
    """The reports of all processes, or of those that gave one until there are enough or the time is over."""
    reports: _Reports = {}
    end = time.monotonic() + seconds
    while True:
        for rank in set(range(world.size)) - reports.keys():
            if world.store.check([f"failed/{rank}"]):
                reports[rank] = json.loads(world.store.get(f"failed/{rank}"))
        if len(reports) == world.size or is_enough(reports) or time.monotonic() >= end:
            return reports
        time.sleep(0.02)


def _cause(reports: _Reports) -> int | None:
    """The first process with an error of its own."""
    return min((rank for rank, report in reports.items() if report["own"]), default=None)


def _claims_report(world: World, reporter: int) -> bool:
    """Whether this process reports; it does for a reporter that exited before it could."""
    end = time.monotonic() + (0 if world.rank == reporter else _GRACE)
    while time.monotonic() < end:
        if world.store.check(["reported"]):
            return False
        time.sleep(0.02)
    return bool(world.store.add("reported", 1) == 1)


def _with_rank(world: World, error: Exception) -> Exception:
    """The error with the rank of its process; that of the first is reported as it is."""
    if world.rank == 0:
        return error
    text = str(error) if isinstance(error, (*USER_ERRORS, RunError)) else _traceback(error)
    kind = UserError if isinstance(error, USER_ERRORS) else RunError
    return kind(f"process {world.rank} of {world.size}: {text}")


def _without_store(world: World, error: Exception) -> Exception:
    return _connections_broke(world, error) if is_peer_failure(error) else error


def _lost(world: World, reports: _Reports, error: Exception) -> RunError:
    reached = {rank for rank, report in reports.items() if not report["own"]}
    lost = sorted(set(range(world.size)) - reached)
    if not lost:
        return _connections_broke(world, error)
    names = ", ".join(map(str, lost))
    subject = f"process {names} is" if len(lost) == 1 else f"processes {names} are"
    return RunError(
        f"{subject} gone or hung, of {world.size} (0 to {world.size - 1}): killed, out of memory, or on a "
        f"machine that is down ({short_message(error)}); {_recovery_hint(world)}"
    )


def _connections_broke(world: World, error: Exception) -> RunError:
    return RunError(
        f"the connections between the {world.size} processes broke ({short_message(error)}); "
        f"{_recovery_hint(world)}"
    )


def _recovery_hint(world: World) -> str:
    if world.rank_info.restarts_left > 0:
        return "all processes are restarted"
    return "the last checkpoint is complete: resume with --resume auto, or let --max_restarts N do so"


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(error)).rstrip()
