"""Gives the program wrong inputs of every kind and looks for any end but a result or one clear message.

    python -m tests.fuzz [--cases N] [--seed N] [--kind NAME ...] [--jobs N] [--output DIR] [--replay FILE]

A failure is a traceback, a hang, a crash of the process, code of the input that runs, a file written
elsewhere, or a message that is empty or too long. Each leaves a reproducer in the output folder, which
`--replay` runs again. The same seed gives the same cases.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.fuzz.kinds import KINDS
from tests.fuzz.pool import fuzz, replay


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    parser.add_argument("--output", type=Path, help="folder of reproducers; by default a temporary one")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run the case of a reproducer again")
    options = parser.parse_args()
    if options.replay is not None:
        return replay(options.replay)
    output = options.output or Path(tempfile.mkdtemp(prefix="fuzz-"))
    found = fuzz(options.kind, options.cases, options.seed, options.jobs, output.resolve())
    print(f"{'kind':<16} {'cases':>7} {'refused':>8} {'seconds':>8} {'failures':>9}")
    for progress in found:
        failures = sum(failure.count for failure in progress.failures.values())
        print(
            f"{progress.kind:<16} {progress.cases:>7,} {progress.refused:>8,} {progress.seconds:>8.1f} "
            f"{failures:>9,}"
        )
    print(f"{'all':<16} {sum(progress.cases for progress in found):>7,}, seed {options.seed}")
    for progress in found:
        for failure in progress.failures.values():
            print(f"\n{progress.kind}, {failure.count} times: {failure.signature}\n{failure.report}")
    if any(progress.failures for progress in found):
        print(f"\nreproducers: {output}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
