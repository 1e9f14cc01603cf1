"""Errors that a user can cause and fix: shown as one message, without a traceback."""

from wirings.errors import NotFiniteError, WiringError

__all__ = [
    "USER_ERRORS",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "NotFiniteError",
    "ReportedByOtherRank",
    "RunError",
    "UserError",
]


class UserError(Exception):
    """A mistake the user can fix. The message says what is wrong and how to fix it."""


class ConfigError(UserError, ValueError):
    """The experiment file or the command line asks for something that cannot be run."""


class DataError(UserError):
    """A data set is missing, incomplete or damaged."""


class CheckpointError(UserError):
    """A file is missing, damaged or no checkpoint, or does not fit the model or the experiment."""


USER_ERRORS = (UserError, WiringError)
"""Errors of this project and of the library `wirings` that are shown as one message."""


class RunError(Exception):
    """A run failed for a reason outside of the experiment: a lost process, machine or device.

    Resuming from the last checkpoint may succeed, so `max_restarts` tries it.
    """


class ReportedByOtherRank(Exception):
    """This process ends because of an error that another rank reports.

    Attributes:
        status: exit status of the process.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
