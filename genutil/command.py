"""How a command ends: what went wrong is told in one message, and the exit status says what kind it was."""

from __future__ import annotations

import sys
from collections.abc import Callable

from genutil.errors import RunError, ToldByAnother, UserError
from genutil.launch import worker_status
from genutil.signals import Interrupted


def exit_status(command: Callable[[], int]) -> int:
    """Run a command. Returns its status, 2 after a mistake of the user's, 1 if a process was lost, or 128 + n
    after signal n.
    """
    return worker_status(_status(command))


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
