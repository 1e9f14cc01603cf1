"""Errors of this package."""


class WiringError(ValueError):
    """A wrong name, option, number or weight; nothing was changed. The message says what to do."""


class NotFiniteError(WiringError):
    """A weight or a loss is NaN or infinite: training diverged."""


class MissingPackageError(WiringError):
    """An optional package or a compiler is not installed. The message says how to install it."""


class UnknownNameError(WiringError):
    """There is no module, class or function of this name."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without a full stop at its end; without a message, its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
