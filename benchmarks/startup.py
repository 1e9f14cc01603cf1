"""Start of a training: time until the first step of `runner.py`, of `import torch` and of `--help`.

    python -m benchmarks.startup [--app APP] [--rounds N] [--json FILE]

Each command is a separate process; they run alternately. The training ends at its first step.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable

from benchmarks.machine import measure
from benchmarks.report import Report, run

_OPTIMIZER = "torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)"
"""Makes torch import its compiler's front end (`torch._dynamo`)."""
_STOP = "benchmarks.first_step:StopAtFirstStep"


def measure_startup(options: argparse.Namespace) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        training = ["runner.py", f"app:{options.app}", "--callbacks", _STOP]
        training += ["--save_dir", folder, "--log_dir", folder, "--skip_profiling", "--gpus"]
        commands = {
            "import torch": ["-c", "import torch"],
            "import torch, make an optimizer": ["-c", f"import torch; {_OPTIMIZER}"],
            "runner.py, to the first step": training,
            "runner.py --help": ["runner.py", "--help"],
        }
        times = measure({name: _process(words) for name, words in commands.items()}, options.rounds)
    report = Report(
        f"Start of {options.app}",
        ("command", "time", "this / import torch"),
        notes=[f"rounds: {options.rounds}, medians (low to high)"],
    )
    for name, spread in times.items():
        ratio = spread.median / times["import torch"].median
        report.add((name, str(spread), f"{ratio:.2f}"), command=name, ratio=ratio, **spread.numbers())
    return report


def _process(arguments: list[str]) -> Callable[[], object]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start() -> None:
        subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)

    return start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--app", default="apps/quickstart/digits_dnw.yml")
    parser.add_argument("--rounds", type=int, default=7)
    run(measure_startup, parser)
