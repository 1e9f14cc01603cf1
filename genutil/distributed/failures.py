"""When a process fails, one of them tells the user, once, what happened and to which of them."""

from __future__ import annotations

import json
import threading
import time
import traceback
from typing import Any

from genutil.distributed.world import World, is_peer_failure, short_message
from genutil.errors import USER_ERRORS, ReportedByOtherRank, RunError, UserError

_GRACE = 8.0
"""Seconds to wait for what the others have to say; those that say nothing are lost."""
_LONGEST = 3 * _GRACE
"""Seconds for the whole exchange. A call to the store has no time limit of its own, and where the link to its
machine is cut, no answer comes."""


def error_to_report(world: World, error: Exception) -> Exception:
    """The exception this process should end with, after the processes have compared what happened to them.

    The process of lowest rank that is still there tells the cause: its own error, another's error, or which
    processes have fallen silent. The others get a ReportedByOtherRank.
    """
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        error = RunError(
            f"a loading process was killed ({short_message(error)}); most often memory is too small, or in a "
            "container shared memory (`docker run --shm-size 8g`)"
        )
    if world.size == 1:
        return error
    report = {
        "own": not is_peer_failure(error),
        "status": 2 if isinstance(error, USER_ERRORS) else 1,
        "text": str(error) if isinstance(error, (*USER_ERRORS, RunError)) else _traceback(error),
    }
    found: list[Exception] = []
    exchange = threading.Thread(target=lambda: found.append(_compared(world, error, report)), daemon=True)
    exchange.start()
    exchange.join(_LONGEST)
    return found[0] if found else _without_store(world, error, report)


def _compared(world: World, error: Exception, report: dict[str, Any]) -> Exception:
    """`error_to_report` from the reports of all processes that can be reached."""
    try:
        world.store.set(f"failed/{world.rank}", json.dumps(report))
        world.abort_connections()
        reports = _collect(world)
        cause = _cause(reports)
        status = reports[cause]["status"] if cause is not None else 1
        if not _claims_report(world, reports):
            return ReportedByOtherRank(status)
    except RuntimeError:  # the store is gone, with the process or machine that kept it
        return _without_store(world, error, report)
    if cause == world.rank:
        return error
    if cause is not None:
        text = f"process {cause} of {world.size}: {reports[cause]['text']}"
        return UserError(text) if status == 2 else RunError(text)
    return _lost(world, reports, error)


def _without_store(world: World, error: Exception, report: dict[str, Any]) -> Exception:
    return error if report["own"] else _connections_broke(world, error)


def _collect(world: World) -> dict[int, dict[str, Any]]:
    """The reports by rank: of all processes, or of those that gave one in time."""
    reports: dict[int, dict[str, Any]] = {}
    end = time.monotonic() + _GRACE
    while len(reports) < world.size and time.monotonic() < end:
        for rank in set(range(world.size)) - reports.keys():
            if world.store.check([f"failed/{rank}"]):
                reports[rank] = json.loads(world.store.get(f"failed/{rank}"))
        time.sleep(0.02)
    return reports


def _cause(reports: dict[int, dict[str, Any]]) -> int | None:
    """The first process with an error of its own."""
    return min((rank for rank, report in reports.items() if report["own"]), default=None)


def _claims_report(world: World, reports: dict[int, dict[str, Any]]) -> bool:
    """Whether this process is the one that tells; another does if the first in line does not."""
    end = time.monotonic() + (0 if world.rank == min(reports, default=world.rank) else _GRACE)
    while time.monotonic() < end:
        if world.store.check(["told"]):
            return False
        time.sleep(0.02)
    return bool(world.store.add("told", 1) == 1)


def _lost(world: World, reports: dict[int, dict[str, Any]], error: Exception) -> RunError:
    silent = sorted(set(range(world.size)) - reports.keys())
    if not silent:
        return _connections_broke(world, error)
    names = ", ".join(map(str, silent))
    subject = f"process {names} is" if len(silent) == 1 else f"processes {names} are"
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
        return "all are started anew"
    return "the last checkpoint is whole: go on with --resume auto, or let --max_restarts N do so by itself"


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(error)).rstrip()
