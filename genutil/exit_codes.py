"""Exit codes: exceptions of a command become one message and an exit status."""

from __future__ import annotations

import contextlib
import errno
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from genutil.distributed.launch import wait_for_torchrun, worker_status, write_torchrun_error
from genutil.distributed.rank_info import rank_info_from_env
from genutil.exceptions import USER_ERRORS, ReportedByOtherRank, RunError, UserError
from genutil.output import Output, safe_output
from genutil.signals import Interrupted

_FILE_ERRORS = {
    getattr(errno, name)
    for name in (
        "EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EIO", "EMFILE", "ENFILE", "ENOTDIR", "ENAMETOOLONG",
        "ELOOP",
    )
    if hasattr(errno, name)
}  # fmt: skip
"""Failures of files and folders that are not errors in the program."""


def exit_status(command: Callable[[], int]) -> int:
    """Run a command. Returns its status, 2 after an error of the user, 1 if a process was lost, or 128 + n
    after signal n.

    A closed standard output changes no status. One that cannot be written to, such as a file on a full disk,
    gives status 2 at the end.
    """
    with safe_output() as output:
        try:
            status = _status(command)
        except SystemExit as ended:  # argparse, after --help or a wrong option
            if ended.code:
                raise
            raise SystemExit(_status_of_output(output, 0)) from None
        return worker_status(_status_of_output(output, status))


def _status_of_output(output: Output, status: int) -> int:
    """Exit status of a command that ended with `status`, after its output was written."""
    output.flush()
    if output.error is None or isinstance(output.error, BrokenPipeError):
        return status
    print(f"standard output: cannot be written to ({output.error.strerror})", file=sys.stderr)
    return status or 2


def exit_process(status: int) -> NoReturn:
    """End this process with `status`.

    One of several processes ends at once: torch's teardown waits for its threads and for the other processes,
    which after a failure may not exist any more.
    """
    if _is_one_of_several():
        for child in multiprocessing.active_children():
            child.kill()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _is_one_of_several() -> bool:
    try:
        rank_info = rank_info_from_env()
    except UserError:  # it was reported before
        return False
    return rank_info is not None and rank_info.size > 1


def _status(command: Callable[[], int]) -> int:
    try:
        _check_folder()
        return command()
    except USER_ERRORS as error:
        return _reported(str(error), 2)
    except RunError as error:
        return _reported(str(error), 1)
    except ReportedByOtherRank as ended:
        wait_for_torchrun()
        return ended.status
    except Interrupted as stopped:
        with contextlib.suppress(OSError):  # after SIGHUP the terminal is gone
            print(stopped, file=sys.stderr)
        return 128 + stopped.signum
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except OSError as error:
        if error.filename is None or error.errno not in _FILE_ERRORS:
            raise
        return _reported(f"{error.filename}: {error.strerror}", 2)


def _check_folder() -> None:
    """Check the current folder, since relative paths depend on it.

    Raises:
        UserError: the current folder was removed.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(
            f"the current folder cannot be used ({error.strerror}); change to another one"
        ) from error


def _reported(message: str, status: int) -> int:
    print(message, file=sys.stderr)
    sys.stderr.flush()  # when this process ends, a launcher may end the others and print its own text
    write_torchrun_error(message)
    return status
