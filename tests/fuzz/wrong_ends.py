"""Cases that end in every wrong way, for the test of what the fuzzer notices: FOLDER."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from genutil.exceptions import UserError
from tests.fuzz.engine import outcome
from tests.fuzz.guard import EXECUTED, Guard, limit_memory


def loop():
    while True:
        pass


def refuse(text):
    raise UserError(text)


ENDS = {
    "result": lambda: None,
    "refused": lambda: refuse("lr: must be greater than 0"),
    "empty": lambda: refuse(" "),
    "long": lambda: refuse("x" * 30_000),
    "traceback": lambda: refuse("Traceback (most recent call last):"),
    "error": lambda: {}["missing"],
    "exit": lambda: sys.exit(0),
    "hang": loop,
    "memory": lambda: bytearray(2**33),
    "executed": lambda: sys.audit(EXECUTED),
    "process": lambda: subprocess.run(["true"]),
    "elsewhere": lambda: Path("/dev/full").open("w").close(),
    "inside": lambda: Path("file").write_text("x"),
    "crash": os.abort,
}


class Kind:
    in_child = False

    def run(self, case, folder):
        ENDS[case]()


def main():
    folder, kind = Path(sys.argv[1]), Kind()
    guard = Guard(folder, 0.5, 60)
    limit_memory(1)
    for name in ENDS:
        kind.in_child = name == "crash"
        ended = outcome(kind, name, guard, folder / "files")
        print(name, ended[0] if isinstance(ended, tuple) else ended)


if __name__ == "__main__":
    main()
