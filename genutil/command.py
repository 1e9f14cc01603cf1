"""How a command ends: what went wrong is told in one message, and the exit status says what kind it was."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from genutil.errors import RunError, ToldByAnother, UserError
from genutil.launch import worker_status
from genutil.place import find_place
from genutil.signals import Interrupted


def exit_status(command: Callable[[], int]) -> int:
    """Run a command. Returns its status, 2 after a mistake of the user's, 1 if a process was lost, or 128 + n
    after signal n.
    """
    return worker_status(_status(command))


def leave(status: int) -> NoReturn:
    """End this process with `status`.

    One of several processes ends at once: torch's teardown waits for its threads and for the other processes,
    and after a failure there may be nobody to wait for.
    """
    place = find_place()
    if place is not None and place.size > 1:
        for child in multiprocessing.active_children():
            child.kill()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _status(command: Callable[[], int]) -> int:
    try:
        return command()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except RunError as error:
        print(error, file=sys.stderr)
        return 1
    except ToldByAnother as ended:
        return ended.status
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return 128 + stopped.signum
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
