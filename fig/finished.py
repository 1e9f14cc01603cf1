"""What finished runs have left: their results, and which of them are of one experiment."""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fig.parts import whole_time
from genutil.config.identity import differences_without_seed
from genutil.errors import UserError
from genutil.runs.run_folder import METRICS, RESULTS
from genutil.runs.start_record import mixing, record_in
from genutil.text_files import read_json

_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "name": str, "seed": int, "config": dict, "wall_time": (int, float), "device": str,
    "commit": (str, type(None)),
}  # fmt: skip
"""What `results.json` must hold for tables and pictures."""
_SETTINGS: Mapping[str, type] = {"graph": str, "data": str, "num_epochs": int}
_DEFAULT = {"num_epochs": 0}
_NUMBERS = ("seed", "top1_accuracy", "epochs", "params", "macs", "latency_ms", "wall_time")
"""What must be a number where it is there."""
_log = logging.getLogger(__name__)


def read_results(runs: Sequence[Path], evaluations: bool = False) -> list[dict[str, Any]]:
    """`results.json` of trainings, by name and seed. `folder` is where it was found, `wall_time` that of all
    parts of the training.

    What cannot be read is left out with a warning that names it.

    Args:
        runs: folders of runs, or folders that hold some.
        evaluations: those of evaluations, too.

    Raises:
        UserError: none of them can be shown.
    """
    found: list[tuple[float, dict[str, Any]]] = []
    problems: dict[Path, str] = {}
    for run in runs:
        own = run / RESULTS
        files = [own] if own.is_file() else sorted(run.glob(f"*/{RESULTS}"))
        if not files:
            problems[run] = f"{run}: no finished run is there ({RESULTS})"
        for file in files:
            try:
                results = _read(file)
            except UserError as error:
                problems[file if file != own else run] = str(error)
                continue
            if evaluations or "epochs" in results:  # an evaluation has none
                found.append((file.stat().st_mtime, results))
    if runs and not found:
        what = "training or evaluation" if evaluations else "training"
        none = f"{', '.join(map(str, runs))}: no {what} is there that can be shown"
        raise UserError(next((problems[run] for run in runs if run in problems), none))
    for problem in problems.values():
        _log.warning("%s; it is left out", problem)
    ordered = sorted(found, key=lambda pair: (pair[1]["name"], pair[1]["seed"], pair[0]))
    return [results for _, results in ordered]


def _read(file: Path) -> dict[str, Any]:
    try:
        results = read_json(file)
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
        what = "a sparse ResNet, which fig.sparsity draws" if "model_config" in config else "no wired network"
        raise UserError(f"{file}: is of {what}")
    wrong = [key for key in _NUMBERS if key in results and not _is_number(results[key])]
    wrong += [
        f"config.{key}"
        for key, kind in _SETTINGS.items()
        if not isinstance(config.get(key, _DEFAULT.get(key)), kind)
    ]
    if wrong:
        raise UserError(f"{file}: is damaged: {', '.join(wrong)} is not of its type")
    if "top1_accuracy" not in results:
        raise UserError(f"{file}: has no top-1 accuracy (topk: {config.get('topk')})")
    results = {**results, "folder": str(file.parent)}
    try:
        return {**results, "wall_time": whole_time(results)}
    except UserError:  # a table can do without the metrics
        return results


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 2**63 and math.isfinite(value)


def by_experiment(results: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Results by experiment: those of one group differ in their seeds alone.

    Experiments of one name are distinguished by the settings in which they differ. A training that was
    resumed from a checkpoint of other settings is an experiment of its own, and its name says so. Of several
    results with one seed the last one counts that has metrics; the others are named in a warning.
    """
    groups: list[list[dict[str, Any]]] = []
    for result in results:
        group = next((group for group in groups if _is_of(result, group)), None)
        if group is None:
            groups.append([result])
            continue
        place = next((n for n, member in enumerate(group) if member["seed"] == result["seed"]), None)
        if place is None:
            group.append(result)
        elif _has_metrics(group[place]) and not _has_metrics(result):
            _log.warning(
                "%s is left out: it has no metrics, and %s is of the same experiment and seed",
                result["folder"], group[place]["folder"],
            )  # fmt: skip
        else:
            _log.warning(
                "%s is left out: a later run has the same experiment and seed", group[place]["folder"]
            )
            group[place] = result
    return dict(zip(_names(groups), groups, strict=True))


def _is_of(result: Mapping[str, Any], group: Sequence[Mapping[str, Any]]) -> bool:
    same = experiment_name(group[0]) == experiment_name(result)
    same = same and mixing(record_in(group[0])) == mixing(record_in(result))
    return same and not any(_differences(member, result) for member in group)


def _has_metrics(result: Mapping[str, Any]) -> bool:
    return (Path(result["folder"]) / METRICS).is_file()


def experiment_name(result: Mapping[str, Any]) -> str:
    """The name without the seed."""
    return str(result["name"]).removesuffix(f"-seed{result['seed']}")


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return differences_without_seed(_settings(one), _settings(other))


def _settings(result: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the results: for an evaluation, also whose weights it took."""
    config = {**result["config"], "seed": result["seed"]}
    return {**config, "checkpoint": config.get("resume")} if config.get("evaluate") else config


def _names(groups: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """One for each group, no two the same."""
    names: list[str] = []
    for group in groups:
        name = _marked_name(group[0])
        others = [other for other in groups if other is not group and _marked_name(other[0]) == name]
        pairs = [(one, another) for other in others for one in group for another in other]
        own = {key: pair[0] for one, another in pairs for key, pair in _differences(one, another).items()}
        name = ", ".join([name, *(f"{key}={_shown(value)}" for key, value in sorted(own.items()))])
        numbered = (f"{name} ({number})" for number in itertools.count(2))
        names.append(next(free for free in itertools.chain([name], numbered) if free not in names))
    return names


def _marked_name(result: Mapping[str, Any]) -> str:
    """The experiment's name; where a part was trained with other settings, with a mark that names them."""
    starts = mixing(record_in(result))
    if not starts:
        return experiment_name(result)
    known = [f"{key}={_shown(pair[0])}" for start in starts for key, pair in sorted((start or {}).items())]
    others = ", ".join(dict.fromkeys([*known, *(["unknown"] if None in starts else [])]))
    what = "weights of" if result["config"].get("evaluate") else "resumed from"
    return f"{experiment_name(result)} ({what} other settings: {others})"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
