"""Runs one experiment: `python runner.py app:apps/quickstart/digits_dnw.yml`. `--help` lists every key."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__" and getattr(sys.flags, "safe_path", False):
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # PYTHONSAFEPATH leaves the script's folder out

from genutil.config import to_yaml
from genutil.config.command_line import parse_command_line
from genutil.devices import prepare_determinism, select_gpus
from genutil.distributed.launch import launch, processes_to_start, reported_by_first_rank
from genutil.distributed.rank_info import rank_info_from_env
from genutil.exit_codes import exit_process, exit_status
from genutil.runs.multi_seed import run_seeds
from genutil.runs.run_folder import set_up_logging, summary


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status: 0, 2 for a mistake of the user's, 128 + n for signal n, or 1."""
    return exit_status(lambda: _main(sys.argv[1:] if argv is None else argv))


def _main(argv: Sequence[str]) -> int:
    rank_info = rank_info_from_env()
    set_up_logging(rank_info.rank if rank_info else 0)
    sys.path.append(os.getcwd())  # classes of the user's own, named as module:Class
    with reported_by_first_rank(rank_info):
        command = parse_command_line(argv)
        if command.print_config:
            print(to_yaml(command.config), end="")
            return 0
        if command.config.seeds:
            return run_seeds(__file__, argv, command.config)
        processes = processes_to_start(command.config)
    if processes is not None:
        return launch(__file__, argv, processes, command.config.max_restarts)
    select_gpus(command.config.gpus)
    if command.config.deterministic:
        prepare_determinism()
    from experiment import run  # imports torch, which must not happen before the devices are selected

    results = run(command.config)
    if results is not None:
        print(summary(results))
    return 0


if __name__ == "__main__":
    exit_process(main())
