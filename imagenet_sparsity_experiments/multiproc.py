"""Starts one process for each GPU: a thin front of PyTorch's launcher, with the published options.

    python imagenet_sparsity_experiments/multiproc.py --nproc_per_node 4 \\
        imagenet_sparsity_experiments/main.py datasets/imagenet --model-config allsparse10
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status of the run."""
    from genutil.exit_codes import exit_status

    return exit_status(lambda: _main(sys.argv[1:] if argv is None else argv))


def _main(argv: Sequence[str]) -> int:
    from genutil.distributed.launch import Cluster, launch
    from genutil.exceptions import ConfigError
    from genutil.runs.run_folder import set_up_logging

    set_up_logging()
    options = _parser().parse_args(argv)
    if not 0 <= options.node_rank < options.nnodes:
        raise ConfigError(f"--node_rank: must be 0 to {options.nnodes - 1}, got {options.node_rank}")
    if options.nproc_per_node < 1:
        raise ConfigError(f"--nproc_per_node: must be at least 1, got {options.nproc_per_node}")
    if not Path(options.training_script).is_file():
        raise ConfigError(f"{options.training_script}: there is no such file; name main.py")
    machines = None
    if options.nnodes > 1:
        machines = Cluster(options.nnodes, options.node_rank, options.master_addr, options.master_port)
    script, arguments = options.training_script, options.training_script_args
    return launch(script, arguments, options.nproc_per_node, options.max_restarts, machines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="multiproc.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--nnodes", type=int, default=1, metavar="N", help="machines (default: 1)")
    add("--node_rank", type=int, default=0, metavar="N", help="number of this machine, from 0 (default: 0)")
    add("--nproc_per_node", type=int, default=1, metavar="N", help="processes of a machine (default: 1)")
    add(
        "--master_addr",
        default="127.0.0.1",
        metavar="HOST",
        help="several machines: the first (default: 127.0.0.1)",
    )
    add("--master_port", type=int, default=29500, metavar="N", help="and a free port of it (default: 29500)")
    add(
        "--max_restarts", type=int, default=0, metavar="N",
        help="how often the run is restarted from its last checkpoint when a process is lost (default: 0)",
    )  # fmt: skip
    add("training_script", metavar="main.py", help="the program, followed by its own options")
    add("training_script_args", nargs=argparse.REMAINDER, metavar="...")
    return parser


if __name__ == "__main__":
    # Started as a file, it finds the project's packages in the folder above.
    if not getattr(sys.flags, "safe_path", False):
        sys.path.pop(0)
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    sys.exit(main())
