"""Errors in the user's classes and functions, reported with the key that names them and their traceback.

User code is code that belongs neither to this project nor to an installed package.
"""

from __future__ import annotations

import contextlib
import sysconfig
import traceback
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType

from genutil.exceptions import USER_ERRORS, ConfigError, ReportedByOtherRank, RunError
from genutil.signals import Interrupted

_PROJECT = Path(__file__).resolve().parent.parent
_PROGRAM_FILES = ("runner.py", "experiment.py", "construction.py")
_PACKAGES = frozenset(
    {"genutil", "data", "models", "trainers", "fig", "imagenet_sparsity_experiments", "wirings"}
)
_INSTALLED = (
    "<frozen",
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
)
_NEVER_NAMED = (*USER_ERRORS, RunError, ReportedByOtherRank, Interrupted)
_LOADER = "in DataLoader worker process"


class UserCodeError(ConfigError):
    """The user's code raised an error. The message ends with the traceback of that code."""


def is_user_code(path: str) -> bool:
    """Whether a module or `module:Name` does not belong to this project."""
    return _package(path) not in _PACKAGES


@contextlib.contextmanager
def user_code_errors_explained(subject: str, path: str, doing: str = "") -> Iterator[None]:
    """Context manager for a call of the user's code.

    Args:
        subject: the key and its value, such as `model: mine:Net`.
        path: `module:Name` of the code.
        doing: what the code was called for; follows `subject` in the message.

    Raises:
        UserCodeError: the code raised an error, or called sys.exit.
    """
    try:
        yield
    except _NEVER_NAMED:
        raise
    except (Exception, SystemExit) as error:
        raise user_code_error(f"{subject}{doing}", error, path) from error


@contextlib.contextmanager
def errors_in_user_code(components: Mapping[str, str]) -> Iterator[None]:
    """Context manager for a run: an error that passed through the user's code is reported as such.

    Args:
        components: the `module:Name` values of the experiment, by key.

    Raises:
        UserCodeError: such an error was raised.
    """
    user_code = {key: path for key, path in components.items() if is_user_code(path)}
    try:
        yield
    except _NEVER_NAMED:
        raise
    except (Exception, SystemExit) as error:
        source = _source(error, user_code) if user_code else None
        if source is None:
            raise
        raise user_code_error(source, error, *user_code.values()) from error


def user_code_error(subject: str, error: BaseException, *paths: str) -> UserCodeError:
    """One line that names the code that raised an error, then the traceback from the user's first frame on.

    Args:
        subject: beginning of the line.
        error: the error.
        paths: `module:Name` of the user's code.
    """
    text = str(error).strip()
    first = text.partition("\n")[0]
    line = f"{subject} raised {type(error).__name__}" + (f": {first}" if first else "")
    if _LOADER in first:  # the text is the traceback of the loading process
        return UserCodeError(f"{line}\n{text.partition('Original ')[2] or text}")
    trace = _first_frame(error, {_package(path) for path in paths})
    if trace is not None:
        lines = traceback.format_exception(type(error), error, trace, chain=False)
    elif isinstance(error, SyntaxError):
        lines = traceback.format_exception_only(type(error), error)
    else:
        return UserCodeError(line)
    return UserCodeError(f"{line}\n{''.join(lines).rstrip()}")


def _source(error: BaseException, user_code: Mapping[str, str]) -> str | None:
    """The key and the path whose code raised an error; None if it was not the user's code."""
    if "data" in user_code and _LOADER in str(error).partition("\n")[0]:
        return f"data: {user_code['data']}"
    trace = _first_frame(error, {_package(path) for path in user_code.values()})
    if trace is not None:
        return _component(trace, user_code)
    if "model" in user_code and _is_in_autograd(error):
        return f"model: {user_code['model']} (in the backward pass)"
    return None


def _first_frame(error: BaseException, packages: Collection[str]) -> TracebackType | None:
    """The first frame of the user's code: neither the project's nor an installed package's."""
    trace = error.__traceback__
    while trace is not None:
        name, module = trace.tb_frame.f_code.co_filename, _module(trace)
        own_program = Path(name).parent == _PROJECT and Path(name).name in _PROGRAM_FILES
        installed = name.startswith(_INSTALLED) and _package(module) not in packages
        if is_user_code(module) and not installed and not own_program:
            return trace
        trace = trace.tb_next
    return None


def _is_in_autograd(error: BaseException) -> bool:
    """Whether torch's autograd engine raised the error."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is not None and _module(last).startswith("torch.autograd")


def _component(trace: TracebackType, user_code: Mapping[str, str]) -> str:
    """The key that names the code of a frame: by the class of its method, or else by its module."""
    module = _module(trace)
    by_module = {key: path for key, path in user_code.items() if path.partition(":")[0] == module}
    classes = {cls.__qualname__ for cls in type(trace.tb_frame.f_locals.get("self")).__mro__}
    by_class = {key: path for key, path in by_module.items() if path.partition(":")[2] in classes}
    components = by_class or by_module
    if not components:  # a module that one of the named ones imports
        return f"{module}, which {' or '.join(user_code)} uses,"
    return " or ".join(f"{key}: {path}" for key, path in components.items())


def _module(trace: TracebackType) -> str:
    return str(trace.tb_frame.f_globals.get("__name__", ""))


def _package(path: str) -> str:
    return path.partition(":")[0].partition(".")[0]
