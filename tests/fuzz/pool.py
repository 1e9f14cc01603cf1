"""Processes that run cases. One that dies or hangs is itself a failure of the case at hand."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conftest import ROOT
from tests.fuzz.engine import Progress, outcome, run_kind
from tests.fuzz.guard import Guard, limit_memory
from tests.fuzz.kinds import counts, make_kind

SECONDS, LONGEST = 20, 90
"""Of the processor, and of the clock, after which a case counts as hung."""
MEMORY = 3.0
"""Gigabytes that the cases of a process may take."""
_MOST_DEATHS = 20


def fuzz(kinds: Sequence[str], cases: int, seed: int, jobs: int, output: Path) -> list[Progress]:
    """Run `cases` cases of these kinds in up to `jobs` processes.

    Args:
        kinds: their names.
        cases: of all kinds together; each gets its share.
        seed: of the random numbers.
        jobs: processes at a time.
        output: folder of the reproducers.
    """
    shares = counts(list(kinds), cases)
    groups = [{kind: shares[kind] for kind in kinds[place::jobs]} for place in range(min(jobs, len(kinds)))]
    with ThreadPoolExecutor(len(groups)) as threads:
        found = {
            kind: done
            for part in threads.map(lambda group: _run(group, seed), groups)
            for kind, done in part.items()
        }
    for progress in found.values():
        for signature, failure in progress.failures.items():
            output.mkdir(parents=True, exist_ok=True)
            name = f"{progress.kind}-{hashlib.sha256(signature.encode()).hexdigest()[:8]}.txt"
            text = f"{progress.kind}\n{failure.case}\n\n{failure.signature}\n{failure.report}\n"
            (output / name.replace(" ", "_")).write_text(text, errors="backslashreplace")
    return [found[kind] for kind in kinds]


def _run(group: Mapping[str, int], seed: int) -> dict[str, Progress]:
    """All cases of a group of kinds. After a death of the process, another one does the rest."""
    done = {kind: Progress(kind) for kind in group}
    for attempt in range(_MOST_DEATHS):
        rest = {kind: count - done[kind].cases for kind, count in group.items() if done[kind].cases < count}
        if not rest:
            break
        with tempfile.TemporaryDirectory() as folder:
            _run_process(rest, seed + 1000 * attempt, Path(folder), done)
    return done


def _run_process(rest: Mapping[str, int], seed: int, folder: Path, done: Mapping[str, Progress]) -> None:
    """Run a process to its end, and add what it found to `done`."""
    command = [sys.executable, "-m", "tests.fuzz.worker", str(folder), str(seed), json.dumps(rest)]
    variables = {
        **os.environ, "TMPDIR": str(folder), "MPLCONFIGDIR": str(folder / "matplotlib"),
        "HOME": str(folder),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    current, errors = folder / "current", folder / "errors"
    with open(errors, "wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=file, stderr=file)
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
            if current.exists() and time.time() - current.stat().st_mtime > 3 * LONGEST:
                process.kill()  # stuck where no signal handler of Python's runs
    for path in folder.glob("*.progress"):
        done[path.stem].include(Progress.load(path))
    if process.returncode:
        text = errors.read_text(errors="replace")[-4000:]
        if not current.exists():
            raise RuntimeError(f"the process did not begin:\n{text}")
        kind, case = json.loads(current.read_text())
        done[kind].add(f"the process ended with status {process.returncode}", text, case)


def work(group: Mapping[str, int], seed: int, folder: Path) -> None:
    """What a process does: run cases, and keep in files where it is."""
    guard = Guard(folder, SECONDS, LONGEST)

    def note(progress: Progress, case: str) -> None:
        (folder / "current").write_text(json.dumps([progress.kind, case]))
        progress.save(folder / f"{progress.kind}.progress")

    for kind, count in group.items():
        valid = folder / f"valid {kind}"
        valid.mkdir()
        made = make_kind(kind, valid)
        limit_memory(MEMORY)
        run_kind(kind, made, count, seed, guard, folder / "files", note)


def replay(file: Path) -> int:
    """Run the case of a reproducer. Returns 1 if it still fails, else 0."""
    kind, case = file.read_text().splitlines()[:2]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "valid").mkdir()
        made = make_kind(kind, folder / "valid")
        guard = Guard(folder, SECONDS, LONGEST)
        limit_memory(MEMORY)
        ended = outcome(made, ast.literal_eval(case), guard, folder / "files")
    print(ended if isinstance(ended, str) else "no failure" if ended is None else "\n".join(ended))
    return int(isinstance(ended, tuple))
