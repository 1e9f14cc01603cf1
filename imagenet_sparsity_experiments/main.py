"""Trains a ResNet on ImageNet whose layers keep their strongest weights. `--help` lists all options.

python imagenet_sparsity_experiments/main.py datasets/imagenet --model-config allsparse10

The command of the published program. The experiment that its options ask for is run like any other one, see
experiment.py; further files, as published, are written from what that run leaves.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagenet_sparsity_experiments.options import Options


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
        options = parse_options(argv, rank_info)
    if options.config.deterministic:
        prepare_determinism()
    from experiment import run

    extra_files = (options.values["final_weights"], options.values["raport_file"])
    results = run(options.config, extra_files)
    if results is not None:
        if options.config.save_checkpoints and not options.config.evaluate:
            write_final_weights(options)
        print(summary(write_raport(options, results)))
    return 0


def write_final_weights(options: Options) -> None:
    """The weights of the last checkpoint as a state dict alone, readable by any program.

    Raises:
        UserError: the file cannot be written.
    """
    import torch

    from genutil.checkpoint import read_checkpoint
    from genutil.checkpoint.file_names import RESNET_NAMES

    weights = read_checkpoint(options.workspace / RESNET_NAMES.last)["model"]
    _write(options.workspace / options.values["final_weights"], lambda file: torch.save(weights, file))


def write_raport(options: Options, results: Mapping[str, Any]) -> dict[str, Any]:
    """Write the report as JSON: results, options, layers, and the metrics of each epoch. Returns its content.

    An earlier report of that name is kept under a number.

    Raises:
        UserError: the file cannot be written.
    """
    from genutil.runs.run_folder import METRICS

    metrics = Path(results["folder"]) / METRICS
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    raport = {
        **results,
        **_density(results.get("layers", [])),
        "options": dict(options.values),
        "metrics": [json.loads(line) for line in lines],
    }
    if options.values["benchmark_inference"]:
        raport["images_per_second"] = 1000 / results["latency_ms"]
    path = options.workspace / options.values["raport_file"]
    if path.exists():
        numbered = (path.with_name(f"{path.stem}.{n}{path.suffix}") for n in itertools.count(1))
        path.rename(next(name for name in numbered if not name.exists()))
    _write(path, lambda file: file.write((json.dumps(raport, indent=2) + "\n").encode()))
    return raport


def _density(costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many weights each convolution has and keeps, the classifier included, and all of them together.

    Args:
        costs: of all layers, as the results of an experiment have them.
    """
    layers = []
    for cost in costs:
        if cost["potential"] or cost["macs"]:  # batch norms have neither
            is_wired = cost["potential"] > 0
            layers.append(
                {
                    "name": cost["name"],
                    "weights": cost["potential"] if is_wired else cost["params"],
                    "kept": cost["edges"] if is_wired else cost["params"],
                    "macs": cost["macs"],
                    "fresh": cost.get("new_edges"),
                }
            )
    weights, kept = (sum(layer[key] for layer in layers) for key in ("weights", "kept"))
    return {"weights": weights, "kept": kept, "density": kept / max(weights, 1), "layers": layers}


def _write(path: Path, write: Callable[[Any], object]) -> None:
    from genutil.exceptions import UserError
    from wirings.files import write_atomically

    try:
        write_atomically(path, write)
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
        raise UserError(
            f"{path}: cannot be written ({error}); free some space or choose another folder"
        ) from error


if __name__ == "__main__":
    # Started as a file, it finds the project's packages in the folder above.
    if not getattr(sys.flags, "safe_path", False):
        sys.path.pop(0)  # the script's own folder, whose modules are named as parts of the package
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from genutil.exit_codes import exit_process

    exit_process(main())
