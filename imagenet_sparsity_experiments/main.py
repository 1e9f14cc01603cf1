"""Trains a ResNet on ImageNet whose layers keep their strongest weights. `--help` lists all options.

python imagenet_sparsity_experiments/main.py datasets/imagenet --model-config allsparse10
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status: 0, 2 for a mistake of the user's, 128 + n for signal n, or 1."""
    from genutil.exit_codes import exit_status

    return exit_status(lambda: _main(sys.argv[1:] if argv is None else argv))


def _main(argv: Sequence[str]) -> int:
    from genutil.devices import prepare_determinism
    from genutil.distributed.launch import reported_by_the_first
    from genutil.distributed.rank_info import rank_info_from_env
    from genutil.runs.run_folder import set_up_logging, summary
    from imagenet_sparsity_experiments.options import parse_options

    rank_info = rank_info_from_env()
    set_up_logging(rank_info.rank if rank_info else 0)
    with reported_by_the_first(rank_info):
        options = parse_options(argv)
    if options.deterministic:
        prepare_determinism()
    from imagenet_sparsity_experiments.program import run

    results = run(options)
    if results is not None:
        print(summary(results))
    return 0


if __name__ == "__main__":
    # Started as a file, it finds the project's packages in the folder above.
    if not getattr(sys.flags, "safe_path", False):
        sys.path.pop(0)  # the script's own folder, whose modules are named as parts of the package
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from genutil.exit_codes import exit_process

    exit_process(main())
