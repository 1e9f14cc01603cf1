"""Experiment files: flat YAML with `_base_`, read safely, with the line of every key."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from genutil.config.limited_yaml import LimitedLoader
from genutil.config.problems import Problem, shortened
from genutil.config.schema import canonical
from genutil.text_files import read_text
from wirings.names import did_you_mean

BASE_KEY = "_base_"
_MOST_BYTES = 1024**2
_MOST_FILES = 100
_LONGEST_CHAIN = 20
_SEARCHED_FOLDERS = 200
"""Number of folders that are searched for a file of a similar name."""
_OUR_FILES = Path(__file__).resolve().parents[2] / "apps"
_log = logging.getLogger(__name__)


@dataclass
class MergedConfig:
    """Merged keys of a file and its bases.

    Attributes:
        values, origins: value and origin (file and line) by key.
        problems: what is wrong in the files.
        own: keys that the file itself sets, without those of its bases.
        num_files: files read.
    """

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    own: set[str] = field(default_factory=set)
    num_files: int = 0


def read_experiment(path: str | os.PathLike[str]) -> MergedConfig:
    """Read an experiment file and, before it, the files that it names in `_base_`; later values
    take precedence.

    Nothing is raised: what cannot be read is listed in `problems`.
    """
    merged = MergedConfig()
    _merge(Path(path), merged, including=(), origin="")
    return merged


def display_path(path: Path) -> str:
    """A path relative to the current folder if it lies inside; else unchanged."""
    try:
        return str(_resolved(path).relative_to(Path.cwd()))
    except (OSError, ValueError):  # OSError: the current folder was removed
        return str(path)


def _resolved(path: Path) -> Path:
    """The path without links; unchanged if links form a circle or the current folder is gone."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path


def _merge(path: Path, merged: MergedConfig, including: tuple[Path, ...], origin: str) -> None:
    if not _count_and_check(path, merged, including, origin):
        return
    node, loader = _compose(path, merged, origin)
    if node is None:
        return
    for key, line in _duplicates(node):
        _report_duplicate(path, key, line, merged)
    entries = _entries(path, node, loader, merged)
    bases, base_origin = entries.pop(BASE_KEY, ([], ""))
    for base in bases if isinstance(bases, list) else [bases]:
        if isinstance(base, str):
            _merge(path.parent / base, merged, (*including, _resolved(path)), base_origin)
        else:
            merged.problems.append(Problem(BASE_KEY, f"must name files, got {shortened(base)}", base_origin))
    for key, (value, key_origin) in entries.items():
        merged.values[key] = value
        merged.origins[key] = key_origin
    if not including:
        merged.own.update(entries)


def _count_and_check(path: Path, merged: MergedConfig, including: tuple[Path, ...], origin: str) -> bool:
    """Count a file, and check that its bases form no cycle and stay within the limits.

    Returns:
        Whether it may be read; if not, a problem is added.
    """
    merged.num_files += 1
    if "\0" in str(path):
        message = f"a file's name holds no null character, got {str(path)!r}"
    elif _resolved(path) in including:
        chain = " -> ".join(display_path(link) for link in (*including, path))
        message = f"the files include each other: {chain}"
    elif len(including) >= _LONGEST_CHAIN:
        message = f"{display_path(path)} is not read: a chain of bases may be {_LONGEST_CHAIN} files long"
    elif merged.num_files > _MOST_FILES:
        if merged.num_files > _MOST_FILES + 1:
            return False  # the problem was added already
        message = (
            f"{display_path(path)} is not read: an experiment may have {_MOST_FILES} files, bases included"
        )
    else:
        return True
    merged.problems.append(Problem(BASE_KEY, message, origin))
    return False


def _compose(
    path: Path, merged: MergedConfig, origin: str
) -> tuple[yaml.MappingNode | None, yaml.SafeLoader | None]:
    """The file's YAML tree; its constructor comes with it because values are made from the tree."""
    try:
        loader = LimitedLoader(read_text(path, _MOST_BYTES))
        node = loader.get_single_node()
    except FileNotFoundError:
        message = "there is no such file" + _near_file(path)
        merged.problems.append(Problem(display_path(path), message, origin))
    except yaml.YAMLError as error:  # some of them are ValueErrors, too
        merged.problems.append(_yaml_problem(path, error))
    except (OSError, ValueError) as error:
        merged.problems.append(Problem(display_path(path), f"cannot be read: {error}", origin))
    else:
        if isinstance(node, yaml.MappingNode):
            return node, loader
        if node is not None:
            merged.problems.append(Problem(display_path(path), "must hold `key: value` lines", origin))
    return None, None


def _entries(
    path: Path, node: yaml.MappingNode, loader: yaml.SafeLoader | None, merged: MergedConfig
) -> dict[str, tuple[Any, str]]:
    assert loader is not None
    entries: dict[str, tuple[Any, str]] = {}
    spellings: dict[str, str] = {}
    try:
        loader.flatten_mapping(node)
        for key_node, value_node in node.value:
            written = str(loader.construct_object(key_node, deep=True))
            value = loader.construct_object(value_node, deep=True)
            key, origin = canonical(written), f"{display_path(path)}, line {key_node.start_mark.line + 1}"
            other = spellings.setdefault(key, written)
            if other != written and entries[key][0] != value:
                message = f"is another name of {other}, which has a different value; keep one of the two"
                merged.problems.append(Problem(written, message, origin))
            entries[key] = (value, origin)
    except yaml.YAMLError as error:
        merged.problems.append(_yaml_problem(path, error))
    return entries


def _duplicates(node: yaml.Node, seen: set[int] | None = None) -> Iterator[tuple[str, int]]:
    """(key, line) of every duplicate key of a mapping, at any depth."""
    seen = set() if seen is None else seen
    if id(node) in seen:  # an alias; it may even hold itself
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        names = set()
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is not None and name in names:
                yield name, key.start_mark.line + 1
            names.add(name)
            yield from _duplicates(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _duplicates(value, seen)


def _report_duplicate(path: Path, key: str, line: int, merged: MergedConfig) -> None:
    """Published files repeat keys and must load; in our own files it is a mistake."""
    if _OUR_FILES in _resolved(path).parents:
        problem = Problem(key, "duplicate key; remove one", f"{display_path(path)}, line {line}")
        merged.problems.append(problem)
    else:
        _log.warning("%s, line %d: duplicate key %s; the last value is used", display_path(path), line, key)


def _yaml_problem(path: Path, error: Exception) -> Problem:
    mark = getattr(error, "problem_mark", None)
    where = f"{display_path(path)}, line {mark.line + 1}" if mark is not None else display_path(path)
    text = getattr(error, "problem", None) or str(error)
    return Problem(display_path(path), f"is not plain YAML: {text}", where)


def _near_file(path: Path) -> str:
    """The nearest name among the YAML files in the folder of the missing one, or in the folders above."""
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    names: dict[str, str] = {}
    for above, folders, files in islice(os.walk(folder), _SEARCHED_FOLDERS):
        folders.sort()
        names |= {name: display_path(Path(above, name)) for name in sorted(files) if name.endswith(".yml")}
    near = did_you_mean(path.name, names)
    return next((f"; did you mean {names[name]}?" for name in names if f" {name}?" in near), "")
