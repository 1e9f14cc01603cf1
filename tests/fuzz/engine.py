"""Runs cases of one kind and collects those whose end is neither a result nor one clear message."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from genutil.exceptions import USER_ERRORS, UserError
from tests.conftest import ROOT
from tests.fuzz.guard import Guard, Hang

LONGEST_MESSAGE = 20_000
"""Characters; a message beyond that fills the screen many times."""


class Kind(Protocol):
    """Inputs of one kind. The constructor takes a folder for the valid inputs that are changed.

    Attributes:
        in_child: each case runs in a process of its own.
    """

    in_child: bool

    def cases(self) -> st.SearchStrategy[Any]:
        """Cases as plain values, which `ast.literal_eval` can read."""

    def run(self, case: Any, folder: Path) -> None:
        """Give the case to the program. `folder` is empty, and the current one.

        Raises:
            UserError: the program's answer to a wrong input.
        """


@dataclass
class Failure:
    """Cases that end alike.

    Attributes:
        signature: what they have in common.
        report: of the smallest one.
        case: its literal.
        count: cases.
    """

    signature: str
    report: str
    case: str
    count: int = 1


@dataclass
class Progress:
    """What has been done of one kind."""

    kind: str
    cases: int = 0
    refused: int = 0
    seconds: float = 0.0
    failures: dict[str, Failure] = field(default_factory=dict)

    def add(self, signature: str, report: str, case: str, count: int = 1) -> None:
        """Note a failure; of several alike the shortest case is kept."""
        known = self.failures.get(signature)
        if known is None:
            self.failures[signature] = Failure(signature, report, case, count)
            return
        known.count += count
        if len(case) < len(known.case):
            known.report, known.case = report, case

    def include(self, other: Progress) -> None:
        """Add what another process has done of this kind."""
        self.cases, self.refused = self.cases + other.cases, self.refused + other.refused
        self.seconds += other.seconds
        for failure in other.failures.values():
            self.add(failure.signature, failure.report, failure.case, failure.count)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)))

    @staticmethod
    def load(path: Path) -> Progress:
        """The inverse of `save`."""
        content = json.loads(path.read_text())
        failures = {key: Failure(**value) for key, value in content.pop("failures").items()}
        return Progress(**content, failures=failures)


def run_kind(
    name: str,
    kind: Kind,
    count: int,
    seed: int,
    guard: Guard,
    folder: Path,
    note: Callable[[Progress, str], None],
) -> Progress:
    """Run `count` cases. The same seed gives the same cases.

    Args:
        name: of the kind.
        kind: of the inputs.
        count: cases.
        seed: of the random numbers.
        guard: of this process.
        folder: for the files of a case; it is emptied before each.
        note: called with the progress and the literal of each case, before it runs and at the end.
    """
    progress = Progress(name)

    @seeded(seed)
    @settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(kind.cases())
    def each(case: Any) -> None:
        if progress.cases >= count:  # hypothesis may try some more
            return
        progress.cases += 1
        note(progress, repr(case))
        ended = outcome(kind, case, guard, folder)
        progress.seconds = time.monotonic() - started
        if ended == "refused":
            progress.refused += 1
        elif ended is not None:
            progress.add(*ended, case=repr(case))

    started = time.monotonic()
    each()
    note(progress, "None")


def outcome(kind: Kind, case: Any, guard: Guard, folder: Path) -> tuple[str, str] | str | None:
    """None: a proper result; `refused`: one clear message; else (signature, report) of a failure."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return _in_child(kind, case, guard, folder) if kind.in_child else _outcome(kind, case, guard, folder)


def _in_child(kind: Kind, case: Any, guard: Guard, folder: Path) -> tuple[str, str] | str | None:
    """`_outcome` in a forked process, which has loaded everything already."""
    file = folder.with_name("outcome")
    child = os.fork()
    if child == 0:
        try:
            file.write_text(json.dumps(_outcome(kind, case, guard, folder)))
        finally:
            os._exit(0)
    end = time.monotonic() + 2 * guard.longest
    while (waited := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    if not file.exists():
        return (
            f"the process ended with status {os.waitstatus_to_exitcode(waited[1])}",
            "no traceback is known",
        )
    ended = json.loads(file.read_text())
    file.unlink()
    return tuple(ended) if isinstance(ended, list) else ended


def answer(main: Callable[[list[str]], int], words: Iterable[object]) -> None:
    """Call a command.

    Raises:
        UserError: with the message that it printed, if its status is 2.
    """
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        try:
            status = main([str(word) for word in words])
        except SystemExit as ended:  # of argparse
            status = ended.code if isinstance(ended.code, int) else 1
    if status == 2:
        raise UserError(errors.getvalue())
    assert status == 0, f"status {status}: {errors.getvalue()}"


def _outcome(kind: Kind, case: Any, guard: Guard, folder: Path) -> tuple[str, str] | str | None:
    os.chdir(folder)
    ended: tuple[str, str] | str | None = None
    with _quiet():
        try:
            with guard.watch():
                kind.run(case, folder)
        except USER_ERRORS as error:
            ended = _wrong_message(error) or "refused"
        except Hang as error:
            ended = (f"hang in {_place(error)}", f"no end in time\n{_shown(error)}")
        except BaseException as error:
            ended = (f"{type(error).__name__} in {_place(error)}", _shown(error))
    os.chdir(folder.parent)
    if guard.events:
        ended = (f"forbidden: {guard.events[0].split()[0]}", "\n".join(guard.events))
    return ended


def _wrong_message(error: Exception) -> tuple[str, str] | None:
    text = str(error)
    where = f"{type(error).__name__} of {_place(error)}"
    if not text.strip():
        return f"empty message, {where}", _shown(error)
    if "Traceback (most recent call last)" in text:
        return f"traceback in a message, {where}", text[-3000:]
    if len(text) > LONGEST_MESSAGE:
        return f"message that is too long, {where}", f"{len(text)} characters: {text[:500]} …"
    return None


def _place(error: BaseException) -> str:
    """The innermost function of this project that the exception came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame for frame in frames if frame.filename.startswith(str(ROOT)) and ".venv" not in frame.filename
    ]
    ours = [frame for frame in own if f"{os.sep}tests{os.sep}" not in frame.filename] or own
    return f"{Path(ours[-1].filename).relative_to(ROOT)}:{ours[-1].name}" if ours else "?"


def _shown(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error))
    return text if len(text) < 6000 else f"{text[:2000]}\n…\n{text[-4000:]}"


@contextlib.contextmanager
def _quiet() -> Any:
    """Without the warnings and outputs of the program, which are many."""
    logging.disable(logging.CRITICAL)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)
