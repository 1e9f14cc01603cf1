"""The published command: trains a ResNet on ImageNet that uses the strongest weights of each layer.

python imagenet_sparsity_experiments/main.py datasets/imagenet --model-config allsparse10

options.py converts the options to an experiment, experiment.py runs it, and the published files (final
weights, report) are written from its results. `--help` lists all options.
"""

from __future__ import annotations

import functools
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
    from genutil.distributed.launch import reported_by_first_rank
    from genutil.distributed.rank_info import rank_info_from_env
    from genutil.runs.run_folder import set_up_logging, summary
    from imagenet_sparsity_experiments.options import convert_settings, parse_options

    rank_info = rank_info_from_env()
    set_up_logging(rank_info.rank if rank_info else 0)
    with reported_by_first_rank(rank_info):
        options = parse_options(argv, rank_info)
    if options.config.deterministic:
        prepare_determinism()
    from experiment import CommandFiles, run

    def write_files(results: Mapping[str, Any]) -> None:
        if options.config.save_checkpoints and not options.config.evaluate:
            write_final_weights(options)
        write_report(options, report_of(options, results))

    command_files = CommandFiles(
        extra_files=(options.values["final_weights"], options.values["raport_file"]),
        convert_settings=functools.partial(convert_settings, rank_info=rank_info),
        write_files=write_files,
    )
    results = run(options.config, command_files)
    if results is not None:
        print(summary(report_of(options, results)))
    return 0


def write_final_weights(options: Options) -> None:
    """Write the weights of the last checkpoint as a plain state dict.

    Raises:
        UserError: the file cannot be written.
    """
    import torch

    from genutil.checkpoint import read_checkpoint
    from genutil.checkpoint.file_names import RESNET_FORMAT

    weights = read_checkpoint(options.workspace / RESNET_FORMAT.last)["model"]
    _write(options.workspace / options.values["final_weights"], lambda file: torch.save(weights, file))


def report_of(options: Options, results: Mapping[str, Any]) -> dict[str, Any]:
    """The report (`--raport-file`): results, options, layers, and the metrics of each epoch."""
    from genutil.runs.run_folder import METRICS

    metrics = Path(results["folder"]) / METRICS
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    report = {
        **results,
        **_density(results.get("layers", [])),
        "options": dict(options.values),
        "metrics": [json.loads(line) for line in lines],
    }
    if options.values["benchmark_inference"]:
        report["images_per_second"] = 1000 / results["latency_ms"]
    return report


def write_report(options: Options, report: Mapping[str, Any]) -> None:
    """Write the report as JSON. An earlier one is renamed: a number is added to its name.

    Raises:
        UserError: the file cannot be written.
    """
    path = options.workspace / options.values["raport_file"]
    if path.exists():
        numbered = (path.with_name(f"{path.stem}.{n}{path.suffix}") for n in itertools.count(1))
        path.rename(next(name for name in numbered if not name.exists()))
    _write(path, lambda file: file.write((json.dumps(report, indent=2) + "\n").encode()))


def _density(costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Number of weights, and of weights in use, of each convolution and of all of them.

    Args:
        costs: `layers` of an experiment's results.
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
                    "new_edges": cost.get("new_edges"),
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
