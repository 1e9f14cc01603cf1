"""Tests and benchmarks on a GPU within a time limit: `python -m benchmarks.gpu`.

    python -m benchmarks.gpu [--minutes 8] [--only PART ...] [--data_dir DIR] [--json FILE] [--page FILE]
        [--device cuda|cpu] [--quick]

Parts, each in its own process with a fraction of the time: the tests marked `gpu`; training steps; selection;
inference; a whole training. Results are written immediately; a part that fails or exceeds its time does not
stop the next one. `--device cpu --quick` runs the program on the CPU, with small sizes.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = Path(__file__).with_name("gpu_requirements.txt")
MODULES = {
    "PyYAML": "yaml",
    "scikit-learn": "sklearn",
    "pytest-timeout": "pytest_timeout",
    "pytest-xdist": "xdist",
}
"""Names of modules that differ from those of their packages."""
SECONDS = {"tests": 90, "steps": 115, "selection": 25, "inference": 55, "training": 195}
"""Seconds of each part in eight minutes."""
GRACE = 10.0
"""Seconds after the time of a part until it is killed."""
_OUTCOME = re.compile(r"(?:^|\s)(PASSED|FAILED|ERROR|SKIPPED|XFAIL)(?:\s|$)")
_TEST = re.compile(r"(tests/\S+::\S+)")


@dataclass
class Part:
    """Results of a part.

    Attributes:
        status: done, failed, out of time, or left out.
        seconds: its duration.
        rows: its results, by table.
        notes: remarks; the last lines of a failure.
    """

    status: str = "left out"
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def missing_packages() -> list[str]:
    """Lines of gpu_requirements.txt whose package is not installed, torch and torchvision among them."""
    lines = ["torch", "torchvision", *REQUIREMENTS.read_text().splitlines()]
    requirements = [line for line in lines if line and not line.startswith("#")]
    names = {line: re.split(r"[><=]", line)[0] for line in requirements}
    return [line for line, name in names.items() if not _is_installed(MODULES.get(name, name))]


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def divide_time(minutes: float, parts: Sequence[str]) -> dict[str, float]:
    """Seconds of each of these parts; they have all of the time."""
    total = sum(SECONDS[part] for part in parts)
    return {part: 60 * minutes * SECONDS[part] / total for part in parts}


def run_part(name: str, seconds: float, options: argparse.Namespace, write: Any) -> Part:
    """Run a part in its own process; `write(part)` is called for each new result."""
    part, started = Part("done"), time.monotonic()
    lines: list[str] = []
    with _started(_command(name, seconds, options), options.device) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        rest = ""
        while True:
            ended = process.poll() is not None
            rest, complete = _read_lines(process, rest)
            for line in complete:
                lines.append(line)
                if _add_line(name, line, part):
                    write(part)
            part.seconds = time.monotonic() - started
            if ended and not complete:
                break
            if part.seconds > seconds + GRACE:
                part.status = "out of time"
                break
            time.sleep(0.05)
        status = process.returncode
    if part.status == "done" and status:
        part.status = "failed"
    if part.status == "failed" or (part.status == "out of time" and not part.rows):
        part.notes += lines[-25:]
    write(part)
    return part


def _read_lines(process: subprocess.Popen[bytes], rest: str) -> tuple[str, list[str]]:
    assert process.stdout is not None
    text = rest + (process.stdout.read() or b"").decode(errors="replace")
    *complete, rest = text.split("\n")
    return rest, complete


def _add_line(name: str, line: str, part: Part) -> bool:
    """Add a line of a part's output to its results. Returns whether it is one."""
    if name == "tests":
        outcome, test = _OUTCOME.search(line), _TEST.search(line)
        if outcome is None or test is None:
            return False
        row = {"table": "tests", "test": test.group(1), "outcome": outcome.group(1).lower()}
        if row in part.rows:  # pytest's summary repeats failures
            return False
        part.rows.append(row)
        return True
    if not line.startswith("{"):
        print(line, file=sys.stderr)
        return False
    content = json.loads(line)
    if "note" in content:
        part.notes.append(content["note"])
    else:
        part.rows.append(content)
    return True


def _command(name: str, seconds: float, options: argparse.Namespace) -> list[str]:
    if name == "tests":
        selection = ["-k", "golden_logits and small or straight"] if options.quick else []
        workers = ["-n", "4"] if options.device == "cuda" else []
        return [
            sys.executable, "-m", "pytest", "tests/gpu", "-v", "--tb=short", "-p", "no:cacheprovider",
            "-m", "gpu", "--device", options.device, *workers, *selection,
        ]  # fmt: skip
    arguments = ["--device", options.device, "--seconds", str(seconds), "--data_dir", str(options.data_dir)]
    arguments += ["--quick"] if options.quick else []
    return [sys.executable, "-m", "benchmarks.gpu_parts", name, *arguments]


@contextlib.contextmanager
def _started(command: Sequence[str], device: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process, which is killed at exit with all processes that it has started."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONUNBUFFERED": "1"}
    if device == "cpu":
        environment["TRITON_INTERPRET"] = "1"
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def page(machine: dict[str, str], parts: dict[str, Part]) -> str:
    """The results as Markdown."""
    lines = ["# On a GPU", "", "Written by `python -m benchmarks.gpu`.", ""]
    lines += [f"- {name}: {value}" for name, value in machine.items()]
    for name, part in parts.items():
        lines += ["", f"## {name.capitalize()}", "", f"{part.status}, {part.seconds:.0f} s"]
        for table in dict.fromkeys(row["table"] for row in part.rows):
            rows = [row for row in part.rows if row["table"] == table]
            lines += ["", *(_summary_of_tests(rows) if table == "tests" else _table(table, rows))]
        if part.notes:
            lines += ["", "```text", *part.notes, "```"]
    return "\n".join(lines) + "\n"


def _summary_of_tests(rows: list[dict[str, Any]]) -> list[str]:
    outcomes = [row["outcome"] for row in rows]
    failed = [row["test"] for row in rows if row["outcome"] in ("failed", "error")]
    lines = [f"{outcomes.count('passed')} passed, {len(failed)} failed, {outcomes.count('skipped')} skipped."]
    return [*lines, *(f"- failed: `{test}`" for test in failed)]


def _table(name: str, rows: list[dict[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "table"))
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    lines = [f"### {name}", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in cells)]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def describe_machine(device: str) -> dict[str, str]:
    """Card, driver and versions, by name."""
    code = "import json; from benchmarks.gpu_parts import machine; print(json.dumps(machine({!r})))"
    process = subprocess.run(
        [sys.executable, "-c", code.format(device)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    if process.returncode:
        return {"machine": "unknown: " + (process.stderr.strip().splitlines() or ["no output"])[-1]}
    description: dict[str, str] = json.loads(process.stdout.splitlines()[-1])
    return description


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0 if all parts succeeded, 1 if not, 2 if they cannot run."""
    options = make_parser().parse_args(argv)
    missing = missing_packages()
    if missing:
        print(
            f"not installed: {', '.join(missing)}; install with: python -m pip install "
            f"{' '.join(repr(line) for line in missing)} (without a network: see the top of "
            f"{REQUIREMENTS.relative_to(ROOT)})",
            file=sys.stderr,
        )
        return 2
    machine = describe_machine(options.device)
    if options.device == "cuda" and "card" not in machine:
        print(f"no CUDA device: {machine.get('machine', 'torch sees none')}", file=sys.stderr)
        return 2
    names = options.only or list(SECONDS)
    parts: dict[str, Part] = {}

    def write(name: str, part: Part) -> None:
        parts[name] = part
        if options.json:
            content = {"machine": machine, "parts": {key: asdict(value) for key, value in parts.items()}}
            _replace(options.json, json.dumps(content, indent=1) + "\n")
        if options.page:
            _replace(options.page, page(machine, parts))

    for name, seconds in divide_time(options.minutes, names).items():
        print(f"{name}: {seconds:.0f} s", file=sys.stderr)
        run_part(name, seconds, options, lambda part, name=name: write(name, part))
    print(page(machine, parts))
    return int(any(part.status != "done" for part in parts.values()))


def _replace(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.replace(file.name, path)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    parser.add_argument("--only", nargs="+", choices=list(SECONDS), metavar="PART", help="only these parts")
    parser.add_argument("--data_dir", type=Path, default=Path("datasets"), help="holds Fashion-MNIST")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument("--page", type=Path, help="write the tables to this file, as Markdown")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes, to check that everything runs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
