"""Finished runs: their results, the metrics of their trainings, and which of them are of one experiment."""

from __future__ import annotations

import itertools
import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from genutil.config.identity import differences_to_continue, differences_without_seed
from genutil.config.limited_yaml import load_yaml
from genutil.config.schema import keys_of
from genutil.exceptions import UserError
from genutil.experiment_name import folder_name
from genutil.runs.run_folder import METRICS, RESULTS
from genutil.runs.start_record import first_epoch_of_settings, record_in, setting_changes
from genutil.text_files import parse_json, read_json, read_text

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "name": str, "seed": int, "config": dict, "wall_time": (int, float), "device": str,
    "commit": (str, type(None)),
}  # fmt: skip
"""What `results.json` must hold for tables and pictures."""
_SETTINGS: Mapping[str, type] = {"graph": str, "data": str, "num_epochs": int}
_DEFAULTS = {"num_epochs": 0}
_NUMBERS = (
    "seed", "top1_accuracy", "epochs", "params", "macs", "latency_ms", "wall_time", "steps", "edges",
    "effective_edges", "live_nodes", "training_macs", "edges_explored", "edge_churn",
)  # fmt: skip
"""Keys of `results.json` that must be numbers where they are present."""
_START_TIME = re.compile(r"-(\d{8}-\d{6})(?:\.(\d+))?")
_Item = TypeVar("_Item")
_Content = TypeVar("_Content")
_log = logging.getLogger(__name__)


def read_each(items: Iterable[_Item], read: Callable[[_Item], _Content]) -> list[tuple[_Item, _Content]]:
    """Each item with what `read` returns for it. One that cannot be read is skipped with a warning.

    Raises:
        UserError: none can be read.
    """
    contents, problems = [], []
    for item in items:
        try:
            contents.append((item, read(item)))
        except UserError as error:
            problems.append(error)
    if problems and not contents:
        raise problems[0]
    for problem in problems:
        _log.warning("%s; it is skipped", problem)
    return contents


def read_results(runs: Sequence[Path], evaluations: bool = False) -> list[dict[str, Any]]:
    """`results.json` of trainings, by name and seed; see `validate_results`.

    What cannot be read is skipped with a warning that names it.

    Args:
        runs: folders of runs, or folders that hold some.
        evaluations: those of evaluations, too.

    Raises:
        UserError: none of them can be shown.
    """
    results: list[tuple[float, dict[str, Any]]] = []
    problems: dict[Path, str] = {}
    for run in runs:
        is_run = (run / RESULTS).is_file()
        files = [run / RESULTS] if is_run else sorted(run.glob(f"*/{RESULTS}"))
        if not files:
            problems[run] = f"{run}: no finished run is there ({RESULTS})"
        for file in files:
            try:
                result = _read(file)
            except UserError as error:
                problems[run if is_run else file] = str(error)
                continue
            if evaluations or "epochs" in result:  # an evaluation has none
                results.append((file.stat().st_mtime, result))
    if runs and not results:
        kind = "training or evaluation" if evaluations else "training"
        message = f"{', '.join(map(str, runs))}: no {kind} is there that can be shown"
        raise UserError(next((problems[run] for run in runs if run in problems), message))
    for problem in problems.values():
        _log.warning("%s; it is skipped", problem)
    ordered = sorted(results, key=lambda pair: (pair[1]["name"], pair[1]["seed"], pair[0]))
    return [result for _, result in ordered]


def _read(file: Path) -> dict[str, Any]:
    try:
        results = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: is damaged ({error})") from error
    if not isinstance(results, dict):
        raise UserError(f"{file}: is damaged (it is not a mapping)")
    return validate_results(results, file)


def validate_results(results: dict[str, Any], file: Path) -> dict[str, Any]:
    """Results that hold what tables and pictures need.

    Args:
        results: the content of the file.
        file: `results.json`.

    Returns:
        The results; `folder` is that of the file, `wall_time` that of all parts of the training.

    Raises:
        UserError: a key is absent, or its value has another type.
    """
    wrong = [key for key, kind in _TYPES.items() if key not in results or not isinstance(results[key], kind)]
    if wrong:
        raise UserError(f"{file}: lacks {', '.join(wrong)}, which the results of a run hold")
    config = results["config"]
    if "graph" not in config:
        kind = (
            "a sparse ResNet, which fig.sparsity draws"
            if "model_config" in config
            else "a network without wiring"
        )
        raise UserError(f"{file}: holds results of {kind}")
    wrong = [key for key in _NUMBERS if key in results and not _is_number(results[key])]
    if not _has_readable_costs(results):
        wrong.append("training_macs_per_image or layers")
    wrong += [
        f"config.{key}"
        for key, kind in _SETTINGS.items()
        if not isinstance(config.get(key, _DEFAULTS.get(key)), kind)
    ]
    if wrong:
        raise UserError(f"{file}: is damaged: {', '.join(wrong)} has another type")
    if "top1_accuracy" not in results:
        raise UserError(f"{file}: has no top-1 accuracy (topk: {config.get('topk')})")
    results = {**results, "folder": str(file.parent)}
    try:
        return {**results, "wall_time": total_time(results)}
    except UserError:  # a table can do without the metrics
        return results


def _has_readable_costs(results: Mapping[str, Any]) -> bool:
    try:
        layers = [(layer["params"], layer["macs"]) for layer in results.get("layers", ()) if layer["name"]]
        macs = results["training_macs_per_image"] if "training_macs" in results else {}
        parts = [macs[key] for key in ("forward", "nodes", "weights")] if macs else []
        return all(map(_is_number, parts)) and all(_is_number(count) for counts in layers for count in counts)
    except (TypeError, LookupError, AttributeError):
        return False


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 2**63 and math.isfinite(value)


def read_metrics(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` of a training in all its parts.

    A training that was stopped and resumed has several folders: of the same name, seed and settings. Where
    two of them hold an epoch, the later one counts. An earlier part that cannot be read is skipped with a
    warning; epochs of other settings are left out.

    Raises:
        UserError: the metrics of the last part cannot be read.
    """
    folder = Path(result["folder"])
    lines = _read_lines(folder)
    first_epoch = first_epoch_of_settings(record_in(result))
    for earlier in _earlier_parts(folder, result):
        begin = min((line["epoch"] for line in lines), default=0)
        if begin <= first_epoch:
            break
        try:
            lines = [line for line in _read_lines(earlier) if first_epoch <= line["epoch"] < begin] + lines
        except UserError as error:
            _log.warning("%s; this part of the training is skipped", error)
    return lines


def total_time(result: Mapping[str, Any]) -> float:
    """Seconds of a training with all its parts, without epochs that were repeated after a restart.

    Raises:
        UserError: its metrics cannot be read.
    """
    begin = min((line["epoch"] for line in _read_lines(Path(result["folder"]))), default=0)
    before = [line["epoch_time"] for line in read_metrics(result) if line["epoch"] < begin]
    return float(result["wall_time"]) + float(sum(before))


def _read_lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / METRICS
    try:
        lines = [parse_json(line) for line in read_text(path).splitlines()]
        return [
            {**line, "epoch": int(line["epoch"]), "epoch_time": float(line.get("epoch_time", 0.0))}
            for line in lines
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def start_time(folder: Path, name: str) -> tuple[str, int] | None:
    """The start of a run by its folder's name, for sorting; None if the folder is of another experiment.

    A run's folder is named after its experiment, `+` and options, and the start time
    (`x+lr=0.1-20260131-235959`, or `….2` if two runs started in one second).

    Args:
        folder: of the run.
        name: of the experiment, as `folder_name` returns it.
    """
    if not folder.name.startswith(name):
        return None
    match = re.fullmatch(rf"(?:\+.*)?{_START_TIME.pattern}", folder.name[len(name) :])
    return (match[1], int(match[2] or 1)) if match else None


def _earlier_parts(folder: Path, result: Mapping[str, Any]) -> list[Path]:
    """Folders of the same training that started before, the last one first."""
    name = folder_name(str(result["name"]))
    end = start_time(folder, name)
    parts = []
    for path in folder.parent.iterdir() if end else ():
        start = start_time(path, name)
        if end and start and start < end and _is_part(path, result["config"]):
            parts.append((start, path))
    return [path for _, path in sorted(parts, reverse=True)]


def _is_part(path: Path, config: Mapping[str, Any]) -> bool:
    try:
        settings = load_yaml(read_text(path / "config.yml"))
        depends_on_length = config["lr_scheduler"] not in ("multistep", "exp_decaying")
        differences = differences_to_continue(settings, config, 0, depends_on_length)
        return (path / METRICS).is_file() and not differences
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def group_by_experiment(results: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
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
        index = next((n for n, member in enumerate(group) if member["seed"] == result["seed"]), None)
        if index is None:
            group.append(result)
        elif _has_metrics(group[index]) and not _has_metrics(result):
            _log.warning(
                "%s is skipped: it has no metrics, and %s has the same experiment and seed",
                result["folder"], group[index]["folder"],
            )  # fmt: skip
        else:
            _log.warning(
                "%s is skipped: a later run has the same experiment and seed", group[index]["folder"]
            )
            group[index] = result
    return dict(zip(_names(groups), groups, strict=True))


def _is_of(result: Mapping[str, Any], group: Sequence[Mapping[str, Any]]) -> bool:
    same = experiment_name(group[0]) == experiment_name(result)
    same = same and setting_changes(record_in(group[0])) == setting_changes(record_in(result))
    return same and not any(_differences(member, result) for member in group)


def _has_metrics(result: Mapping[str, Any]) -> bool:
    return (Path(result["folder"]) / METRICS).is_file()


def experiment_name(result: Mapping[str, Any]) -> str:
    """The name without the seed."""
    return str(result["name"]).removesuffix(f"-seed{result['seed']}")


def _differences(result: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that decide the results and differ by more than the seed."""
    settings, other_settings = ({**run["config"], "seed": run["seed"]} for run in (result, other))
    differences = differences_without_seed(settings, other_settings)
    evaluation, other_evaluation = _evaluation(settings), _evaluation(other_settings)
    for key in {**evaluation, **other_evaluation}:
        pair = evaluation.get(key), other_evaluation.get(key)
        if pair[0] != pair[1]:
            differences[key] = pair
    return differences


def _evaluation(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an evaluation, and its checkpoint without the seed; empty for a training."""
    if not settings.get("evaluate"):
        return {}
    seed = rf"(?<!\d){settings['seed']}(?!\d)"
    checkpoint = re.sub(seed, "{seed}", str(settings.get("resume")))
    return {**{key: settings.get(key) for key in keys_of("evaluation")}, "checkpoint": checkpoint}


def _names(groups: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """One name for each group, no two the same."""
    names: list[str] = []
    for group in groups:
        name = _marked_name(group[0])
        namesakes = [other for other in groups if other is not group and _marked_name(other[0]) == name]
        pairs = [(result, other) for namesake in namesakes for result in group for other in namesake]
        settings = {key: pair[0] for pair_of in pairs for key, pair in _differences(*pair_of).items()}
        name = ", ".join([name, *(f"{key}={_text(value)}" for key, value in sorted(settings.items()))])
        numbered = (f"{name} ({number})" for number in itertools.count(2))
        names.append(next(free for free in itertools.chain([name], numbered) if free not in names))
    return names


def _marked_name(result: Mapping[str, Any]) -> str:
    """The experiment's name; where a part was trained with other settings, with a mark that names them."""
    starts = setting_changes(record_in(result))
    if not starts:
        return experiment_name(result)
    known = [f"{key}={_text(pair[0])}" for start in starts for key, pair in sorted((start or {}).items())]
    settings = ", ".join(dict.fromkeys([*known, *(["unknown"] if None in starts else [])]))
    relation = "weights of" if result["config"].get("evaluate") else "resumed from"
    return f"{experiment_name(result)} ({relation} other settings: {settings})"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
