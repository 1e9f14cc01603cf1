"""Loading of experiments: a file and its overrides become one frozen Config, or a list of all problems."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from genutil.config.consistency import failed_checks
from genutil.config.problems import Problem, origin_of, refuse, shortened
from genutil.config.schema import ALIASES, NEVER_READ, Config, KeySources, canonical, schema
from genutil.config.yaml_files import MergedConfig, read_experiment
from genutil.exceptions import ConfigError
from wirings.names import did_you_mean

__all__ = ["Config", "ConfigError", "load_config", "to_yaml"]

_log = logging.getLogger(__name__)


def load_config(path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> Config:
    """Read an experiment. Precedence: `_base_` < file < overrides; a missing key takes its default.

    Args:
        path: YAML file, with or without a leading `app:`.
        overrides: values by key, as Python values or as the text a user typed.

    Raises:
        ConfigError: names every unknown key, wrong value and contradiction, each with its origin.
    """
    return resolve(path, overrides or {}, ())


def resolve(
    path: str | os.PathLike[str], overrides: Mapping[str, Any], problems: Iterable[Problem]
) -> Config:
    """`load_config`, with the problems of the command line, which are reported together with its own."""
    file = Path(os.path.expanduser(str(path).removeprefix("app:")))
    merged = read_experiment(file)
    merged.problems[:0] = problems
    unreadable = not merged.values and bool(merged.problems)
    written = {canonical(key): value for key, value in overrides.items()}
    merged.values.update(written)
    merged.origins.update({canonical(key): f"--{key}" for key in overrides})
    _drop_never_read(merged)
    if "data_dir" not in merged.values and os.environ.get("DATA_DIR"):
        merged.values["data_dir"] = os.environ["DATA_DIR"]
        merged.origins["data_dir"] = "$DATA_DIR"
    if merged.values.get("name") is None:
        merged.values["name"] = file.stem
    sources = KeySources(own=frozenset({*merged.own, *written}), overrides=tuple(written))
    config, value_problems = validated(merged, sources, required=not unreadable)
    refuse([*merged.problems, *value_problems])
    return config


def to_yaml(config: Config) -> str:
    """The resolved experiment as YAML, in the schema's order; it loads again as the same Config."""
    return yaml.safe_dump({key: getattr(config, key) for key in schema()}, sort_keys=False)


def _drop_never_read(merged: MergedConfig) -> None:
    ignored = [key for key in NEVER_READ if key in merged.values]
    if ignored:
        where = origin_of(ignored, merged.origins)
        _log.warning("%s never had an effect and is ignored (%s)", " and ".join(ignored), where)
    for key in ignored:
        del merged.values[key]


def validated(
    merged: MergedConfig, sources: KeySources, required: bool = True
) -> tuple[Config, list[Problem]]:
    """The Config of merged keys, and their unknown keys, wrong values and contradictions together.

    Args:
        merged: the keys with their origins.
        sources: what set the keys.
        required: whether a required key that is missing is a problem.
    """
    problems = []
    known = schema()
    values = {}
    for key, value in merged.values.items():
        if key in known:
            values[key] = value
        else:
            hint = did_you_mean(key, [*known, *ALIASES])
            message = f"unknown key{hint or '; `--help` lists all keys'}"
            problems.append(Problem(key, message, merged.origins.get(key, "")))
    try:
        config = Config.from_sources(values, sources)
    except ValidationError as error:
        value_problems = _value_problems(error, merged)
        problems += [p for p in value_problems if required or p.message != _MISSING]
        config = _config_of_valid(values, {p.subject for p in value_problems}, sources)
    return config, [*problems, *failed_checks(config, merged.origins)]


_MISSING = "is missing; the file must give it, as module:Class"


def _config_of_valid(values: dict[str, Any], wrong_keys: set[str], sources: KeySources) -> Config:
    """A Config of the valid values, so that contradictions among them are reported as well."""
    valid = {key: value for key, value in values.items() if key not in wrong_keys}
    return Config.from_sources({"model": "unknown:Unknown", "data": "unknown:Unknown", **valid}, sources)


def _value_problems(error: ValidationError, merged: MergedConfig) -> list[Problem]:
    messages: dict[str, list[str]] = {}
    for details in error.errors():
        messages.setdefault(str(details["loc"][0]), []).append(_message(dict(details)))
    problems = []
    for key, texts in messages.items():
        specific = [text for text in texts if text not in _TYPE_MESSAGES] or texts
        message = " or ".join(dict.fromkeys(specific))
        if message != _MISSING:
            value = merged.values[key]
            message += f", got {shortened(value)}" + did_you_mean(value, _choices(key))
        problems.append(Problem(key, message, merged.origins.get(key, "")))
    return problems


_TYPE_MESSAGES = ("must be a valid string", "must be a valid dictionary")
"""Messages of pydantic for a key that takes a text or a mapping; one is always about the other type."""


def _choices(key: str) -> list[str]:
    """What a key may be, where that can be listed."""
    field = schema()[key]
    listed = (field.json_schema_extra or {}).get("choices") or get_args(field.annotation)
    return [choice for choice in listed if isinstance(choice, str)]


def _message(details: dict[str, Any]) -> str:
    """Message for one of the errors of a pydantic.ValidationError."""
    key, kind = str(details["loc"][0]), details["type"]
    if kind == "missing":
        return _MISSING
    if kind == "string_pattern_mismatch":
        return f"must be {' | '.join(_choices(key))}"
    if kind == "value_error":
        return str(details["ctx"]["error"])
    text = str(details["msg"]).removeprefix("Input should ").split(", unable to parse")[0]
    return f"must {text}"
