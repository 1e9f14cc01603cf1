"""Errors in the user's classes and functions, reported with the key that names them and their traceback."""

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
_ROOMS = frozenset(
    {"genutil", "data", "models", "trainers", "fig", "imagenet_sparsity_experiments", "wirings"}
)
_INSTALLED = (
    "<frozen",
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
)
_NEVER_NAMED = (*USER_ERRORS, RunError, ReportedByOtherRank, Interrupted)
_LOADER = "in DataLoader worker process"


class ForeignError(ConfigError):
    """The user's code raised an error. The message ends with the traceback of that code."""


def is_foreign(path: str) -> bool:
    """Whether a module or `module:Name` does not belong to this project."""
    return _package(path) not in _ROOMS


@contextlib.contextmanager
def foreign_errors_named(what: str, path: str, doing: str = "") -> Iterator[None]:
    """Context manager for a call of the user's code.

    Args:
        what: the key and its value, such as `model: mine:Net`.
        path: `module:Name` of the code.
        doing: text after `what` in the message.

    Raises:
        ForeignError: the code raised an error, or called sys.exit.
    """
    try:
        yield
    except _NEVER_NAMED:
        raise
    except (Exception, SystemExit) as error:
        raise foreign_error(f"{what}{doing}", error, path) from error


@contextlib.contextmanager
def errors_in(parts: Mapping[str, str]) -> Iterator[None]:
    """Context manager for a run: an error that passed through the user's code is reported as such.

    Args:
        parts: the `module:Name` values of the experiment, by key.

    Raises:
        ForeignError: such an error was raised.
    """
    foreign = {key: path for key, path in parts.items() if is_foreign(path)}
    try:
        yield
    except _NEVER_NAMED:
        raise
    except (Exception, SystemExit) as error:
        found = _origin(error, foreign) if foreign else None
        if found is None:
            raise
        raise foreign_error(found, error, *foreign.values()) from error


def foreign_error(what: str, error: BaseException, *paths: str) -> ForeignError:
    """One line that names what raised the error, then the traceback from the user's first frame on.

    Args:
        what: beginning of the line.
        error: the error.
        paths: `module:Name` of the user's code.
    """
    text = str(error).strip()
    first = text.partition("\n")[0]
    line = f"{what} raised {type(error).__name__}" + (f": {first}" if first else "")
    if _LOADER in first:  # the text is the traceback of the loading process
        return ForeignError(f"{line}\n{text.partition('Original ')[2] or text}")
    trace = _first_frame(error, {_package(path) for path in paths})
    if trace is not None:
        shown = traceback.format_exception(type(error), error, trace, chain=False)
    elif isinstance(error, SyntaxError):
        shown = traceback.format_exception_only(type(error), error)
    else:
        return ForeignError(line)
    return ForeignError(f"{line}\n{''.join(shown).rstrip()}")


def _origin(error: BaseException, foreign: Mapping[str, str]) -> str | None:
    """The key and the path whose code raised an error; None if it was not the user's code."""
    if "data" in foreign and _LOADER in str(error).partition("\n")[0]:
        return f"data: {foreign['data']}"
    trace = _first_frame(error, {_package(path) for path in foreign.values()})
    if trace is not None:
        return _named(trace, foreign)
    if "model" in foreign and _is_in_autograd(error):
        return f"model: {foreign['model']} (in the backward pass)"
    return None


def _first_frame(error: BaseException, packages: Collection[str]) -> TracebackType | None:
    """The first frame of the user's code: neither the project's nor an installed package's."""
    trace = error.__traceback__
    while trace is not None:
        name, module = trace.tb_frame.f_code.co_filename, _module(trace)
        own_program = Path(name).parent == _PROJECT and Path(name).name in _PROGRAM_FILES
        installed = name.startswith(_INSTALLED) and _package(module) not in packages
        if is_foreign(module) and not installed and not own_program:
            return trace
        trace = trace.tb_next
    return None


def _is_in_autograd(error: BaseException) -> bool:
    """Whether torch's autograd engine raised the error."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is not None and _module(last).startswith("torch.autograd")


def _named(trace: TracebackType, foreign: Mapping[str, str]) -> str:
    """The key that names the code of a frame: by the class of its method, or else by its module."""
    module = _module(trace)
    in_module = {key: path for key, path in foreign.items() if path.partition(":")[0] == module}
    classes = {cls.__qualname__ for cls in type(trace.tb_frame.f_locals.get("self")).__mro__}
    owned = {key: path for key, path in in_module.items() if path.partition(":")[2] in classes}
    found = owned or in_module
    if not found:  # a module that one of the named ones imports
        return f"{module}, which {' or '.join(foreign)} uses,"
    return " or ".join(f"{key}: {path}" for key, path in found.items())


def _module(trace: TracebackType) -> str:
    return str(trace.tb_frame.f_globals.get("__name__", ""))


def _package(path: str) -> str:
    return path.partition(":")[0].partition(".")[0]
