"""What finished runs have left: their results, and which of them are of one experiment."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fig.parts import whole_time
from genutil.errors import UserError
from genutil.experiments import differences_beyond_seeds

_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "name": str, "seed": int, "config": dict, "wall_time": (int, float), "device": str,
    "commit": (str, type(None)),
}  # fmt: skip
"""What `results.json` must hold for tables and pictures."""
_log = logging.getLogger(__name__)


def read_results(runs: Sequence[Path], evaluations: bool = False) -> list[dict[str, Any]]:
    """`results.json` of trainings, by name and seed. `folder` is where it was found, `wall_time` that of all
    parts of the training.

    What is unreadable among several runs is left out with a warning.

    Args:
        runs: folders of runs, or folders that hold some.
        evaluations: those of evaluations, too.

    Raises:
        UserError: there is none in one of them, or one that is named itself cannot be read.
    """
    found = []
    for run in runs:
        own = run / "results.json"
        files = [own] if own.is_file() else sorted(run.glob("*/results.json"))
        if not files:
            raise UserError(f"{run}: no finished run is there (results.json)")
        for file in files:
            try:
                results = _read(file)
            except UserError as error:
                if file == own:
                    raise
                _log.warning("%s; it is left out", error)
                continue
            if evaluations or "epochs" in results:  # an evaluation has none
                found.append((file.stat().st_mtime, results))
    if runs and not found:
        what = "training or evaluation" if evaluations else "training"
        raise UserError(f"{', '.join(map(str, runs))}: no {what} is there that can be shown")
    ordered = sorted(found, key=lambda pair: (pair[1]["name"], pair[1]["seed"], pair[0]))
    return [results for _, results in ordered]


def _read(file: Path) -> dict[str, Any]:
    try:
        results = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: is damaged ({error})") from error
    if not isinstance(results, dict):
        raise UserError(f"{file}: is damaged (it is no mapping)")
    return checked(results, file)


def checked(results: dict[str, Any], file: Path) -> dict[str, Any]:
    """Results that hold what tables and pictures need; `folder` and `wall_time` as read_results has them.

    Args:
        results: the content of the file.
        file: where they are.

    Raises:
        UserError: they lack something.
    """
    wrong = [key for key, kind in _KINDS.items() if key not in results or not isinstance(results[key], kind)]
    if wrong:
        raise UserError(f"{file}: does not tell {', '.join(wrong)}, as the results of a run do")
    config = results["config"]
    if "graph" not in config:
        kind = "a sparse ResNet, which fig.sparsity draws" if "model_config" in config else "no wired network"
        raise UserError(f"{file}: is of {kind}")
    if "top1_accuracy" not in results:
        raise UserError(f"{file}: has no top-1 accuracy (topk: {config.get('topk')})")
    results = {**results, "folder": str(file.parent)}
    try:
        return {**results, "wall_time": whole_time(results)}
    except UserError:  # a table can do without the metrics
        return results


def by_experiment(results: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Results by experiment: those of one group differ in their seeds alone.

    Experiments of one name are told apart by the settings in which they differ. Of several results with one
    seed the last one counts; the others are told.
    """
    groups: list[list[dict[str, Any]]] = []
    for result in results:
        for group in groups:
            same_name = experiment_name(group[0]) == experiment_name(result)
            if same_name and not any(_differences(member, result) for member in group):
                break
        else:
            group = []
            groups.append(group)
        for place, member in enumerate(group):
            if member["seed"] == result["seed"]:
                _log.warning("%s is left out: a later run has the same experiment and seed", member["folder"])
                group[place] = result
                break
        else:
            group.append(result)
    return dict(zip(_names(groups), groups, strict=True))


def experiment_name(result: Mapping[str, Any]) -> str:
    """The name without the seed."""
    return str(result["name"]).removesuffix(f"-seed{result['seed']}")


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return differences_beyond_seeds(_settings(one), _settings(other))


def _settings(result: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the results: for an evaluation, also whose weights it took."""
    config = {**result["config"], "seed": result["seed"]}
    return {**config, "checkpoint": config.get("resume")} if config.get("evaluate") else config


def _names(groups: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """One for each group, no two the same."""
    names: list[str] = []
    for group in groups:
        name = experiment_name(group[0])
        others = [other for other in groups if other is not group and experiment_name(other[0]) == name]
        pairs = [(one, another) for other in others for one in group for another in other]
        own = {key: pair[0] for one, another in pairs for key, pair in _differences(one, another).items()}
        name = ", ".join([name, *(f"{key}={_shown(value)}" for key, value in sorted(own.items()))])
        numbered = (f"{name} ({number})" for number in itertools.count(2))
        names.append(next(free for free in itertools.chain([name], numbered) if free not in names))
    return names


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
