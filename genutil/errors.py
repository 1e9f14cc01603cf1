"""Errors that a user can cause and mend: shown as one message, without a traceback."""


class UserError(Exception):
    """A mistake the user can mend. The message names the thing that is wrong and the mend."""


class ConfigError(UserError, ValueError):
    """The experiment file or the command line asks for something that cannot be run."""


class DataError(UserError):
    """A data set is missing, incomplete or damaged."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, foreign, or does not fit the model."""


class NotFiniteError(UserError, ValueError):
    """A loss or a weight became NaN or infinite: training diverged."""


class RunError(Exception):
    """A run was cut off by something outside of the experiment: a lost process, a silent machine, a device.

    Going on from the last checkpoint may well succeed, so `max_restarts` tries it again.
    """


class ToldByAnother(Exception):
    """This process ends because of an error that another one tells.

    Attributes:
        status: its exit status.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
