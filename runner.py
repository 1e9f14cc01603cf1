"""Runs one experiment: `python runner.py app:apps/quickstart/digits_dnw.yml`. `--help` lists every key."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from genutil.cli import parse_command_line
from genutil.config import to_yaml
from genutil.devices import prepare_determinism, select_gpus
from genutil.errors import UserError
from genutil.reporting import set_up_logging, summary
from genutil.signals import Interrupted


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status: 0, 2 for a mistake of the user's, 128 + n for signal n."""
    set_up_logging()
    sys.path.append(os.getcwd())  # classes of the user's own, named as module:Class
    try:
        command = parse_command_line(sys.argv[1:] if argv is None else argv)
        if command.print_config:
            print(to_yaml(command.config), end="")
            return 0
        select_gpus(command.config.gpus)
        if command.config.deterministic:
            prepare_determinism()
        from experiment import run  # imports torch, which must not happen before the devices are selected

        print(summary(run(command.config)))
        return 0
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return 128 + stopped.signum
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
