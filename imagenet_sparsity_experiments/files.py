"""The files of a run in its workspace: checkpoints under the published names, logs, report, final weights."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genutil.errors import UserError
from genutil.runs.run_folder import RunSettings
from imagenet_sparsity_experiments.options import Options
from wirings.files import write_atomically


def settings_of(options: Options, step_size: int) -> RunSettings:
    """What a run is called, and its options; `optimizer_batch_size` is what it came to."""
    name = f"{options.arch}_{options.model_config}"
    return RunSettings(
        name=name,
        label=name + ("-evaluation" if options.evaluate else ""),
        log_dir=workspace(options) / "logs",
        seed=options.seed,
        values={**options.values(), "optimizer_batch_size": step_size},
    )


def workspace(options: Options) -> Path:
    """The folder of all files."""
    return Path(options.workspace).expanduser()


def write_final_weights(options: Options, network: nn.Module) -> None:
    """The state dict alone, readable by any program.

    Raises:
        UserError: it cannot be written.
    """
    weights = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    _write(workspace(options) / options.final_weights, lambda file: torch.save(weights, file))


def write_raport(options: Options, results: Mapping[str, Any], metrics: list[dict[str, Any]]) -> None:
    """The report as JSON: results, options, layers, and the metrics of each epoch.

    An earlier report of that name is kept under a number.

    Raises:
        UserError: it cannot be written.
    """
    path = workspace(options) / options.raport_file
    text = json.dumps({**results, "metrics": metrics}, indent=2) + "\n"
    if path.exists():
        numbers = itertools.count(1)
        path.rename(next(kept for n in numbers if not (kept := _numbered(path, n)).exists()))
    _write(path, lambda file: file.write(text.encode()))


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def _write(path: Path, write: Any) -> None:
    try:
        write_atomically(path, write)
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
        raise UserError(
            f"{path}: cannot be written ({error}); free some space or choose another folder"
        ) from error
