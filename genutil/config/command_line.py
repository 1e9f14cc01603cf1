"""The command line: `app:FILE` and one option for each key, generated from the schema."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from genutil.config.problems import Problem, refuse
from genutil.config.resolve import Config, resolve
from genutil.config.schema import ALIASES, GROUPS, canonical, schema
from wirings.names import did_you_mean

_NUMBER = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
_NOTHING = ("none", "null", "~")
_USAGE = "python runner.py app:FILE [--key value ...]"
_EPILOG = (
    "Every key can also be set in the file; the command line takes precedence. --key value, --key=value, "
    "--key v1 v2, --flag, --no-flag; - and _ are the same in a key."
)


@dataclass(frozen=True)
class Command:
    """A parsed command line."""

    config: Config
    print_config: bool


def parse_command_line(argv: Sequence[str]) -> Command:
    """Resolve a command line. `--help` prints all keys and exits with 0.

    Raises:
        ConfigError: all that is wrong with the command line and the experiment file.
    """
    experiments, rest = _split(argv)
    options, unknown = _parser().parse_known_args(rest)
    texts = {key: value for key, value in vars(options).items() if value is not None}
    print_config = texts.pop("print_config", False)
    problems: list[Problem] = []
    overrides = {key: _python_value(key, value, problems) for key, value in texts.items()}
    overrides.update(_unknown_options(unknown, problems))
    if len(experiments) != 1:
        refuse([*problems, _experiment_problem(experiments)])
    return Command(resolve(experiments[0], overrides, problems), print_config)


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(experiment files, options). Options get the form `--key` or `--key=value`, as in the schema."""
    experiments: list[str] = []
    options: list[str] = []
    for position, token in enumerate(argv):
        follows_option = position > 0 and bool(options) and options[-1].startswith("--")
        if token.startswith("app:"):
            experiments.append(token.removeprefix("app:"))
        elif token.endswith((".yml", ".yaml")) and not follows_option and not token.startswith("-"):
            experiments.append(token)
        elif token.startswith("--"):
            options.append(_one_form(token))
        elif _NUMBER.match(token) and follows_option and "=" not in options[-1]:
            options[-1] += f"={token}"  # argparse would take -1e-3 for an option
        else:
            options.append(token)
    return experiments, options


def _one_form(token: str) -> str:
    name, equals, value = token[2:].partition("=")
    key, flags = canonical(name), _flags()
    if key not in schema() and not equals:
        for prefix in ("no_", "no"):
            positive = canonical(key.removeprefix(prefix))
            if key.startswith(prefix) and positive in flags:
                return f"--{positive}=false"
    known = key in schema() or key in ("help", "print_config")
    return f"--{key if known else name}{equals}{value}"


def _flags() -> list[str]:
    return [key for key, field in schema().items() if field.annotation is bool]


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(_is_list(part) for part in get_args(annotation))


def _takes_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(map(_takes_mapping, get_args(annotation)))


def _python_value(key: str, texts: list[str], problems: list[Problem]) -> Any:
    """The texts of an option as the schema takes them: a list, a mapping, a flag, or one text."""
    field = schema()[key]
    origin = f"--{key}"
    may_be_none = type(None) in get_args(field.annotation)
    if may_be_none and len(texts) == 1 and texts[0].lower() in _NOTHING:
        return None
    if _is_list(field.annotation):
        return texts
    is_mapping = get_origin(field.annotation) is dict
    if is_mapping or (_takes_mapping(field.annotation) and any("=" in text for text in texts)):
        pairs = [text.partition("=") for text in texts]
        problems += [
            Problem(key, f"takes name=value pairs, got {name!r}", origin)
            for name, equals, _ in pairs
            if not equals
        ]
        return {name: value for name, _, value in pairs}
    if field.annotation is bool and not texts:
        return True
    if len(texts) != 1:
        got = " ".join(texts) or "none"
        problems.append(Problem(key, f"takes one value, got {got}", origin))
    return texts[0] if texts else field.default


def _unknown_options(tokens: Sequence[str], problems: list[Problem]) -> dict[str, Any]:
    """Options that are not keys. They are reported as unknown keys, together with all other problems."""
    unknown: dict[str, Any] = {}
    for token in tokens:
        if token.startswith("--"):
            name, _, value = token[2:].partition("=")
            unknown[name] = value
        elif token.startswith("-") or not unknown:
            hint = did_you_mean(token.lstrip("-"), schema())
            problems.append(Problem(token, f"unexpected argument{hint}", "command line"))
    return unknown


def _experiment_problem(experiments: Sequence[str]) -> Problem:
    if experiments:
        return Problem("app:", f"one experiment at a time, got {', '.join(experiments)}", "command line")
    return Problem("app:", "which experiment? For example app:apps/quickstart/digits_dnw.yml", "command line")


class _Formatter(argparse.HelpFormatter):
    """Shows `--lr X`, not `--lr [X ...]`: the schema checks how many values a key takes."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=110)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return str(action.metavar or "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="runner.py",
        usage=_USAGE,
        epilog=_EPILOG,
        allow_abbrev=False,
        add_help=False,
        formatter_class=_Formatter,
    )
    general = parser.add_argument_group("general")
    general.add_argument("-h", "--help", action="help", help="show this and exit")
    general.add_argument(
        "--print_config", action="store_true", default=None, help="print the resolved experiment and exit"
    )
    for group in GROUPS:
        section = parser.add_argument_group(str(group.__doc__))
        for key, field in group.model_fields.items():
            section.add_argument(f"--{key}", nargs="*", metavar=metavar(field), help=explain(key, field))
    return parser


def metavar(field: Any) -> str:
    """What a key takes, as `--help` shows it."""
    choices = (field.json_schema_extra or {}).get("choices")
    if choices:
        return "|".join(choices)
    if get_origin(field.annotation) is Literal:
        return "|".join(get_args(field.annotation))
    return {bool: "", int: "N", float: "X", dict: "NAME=VALUE"}.get(_plain(field.annotation), "TEXT")


def _plain(annotation: Any) -> Any:
    """The first plain type inside Optional, Annotated and list."""
    if isinstance(annotation, type) or not get_args(annotation):
        return annotation
    origin = get_origin(annotation)
    return origin if origin is dict else _plain(get_args(annotation)[0])


def explain(key: str, field: Any) -> str:
    """What a key means, its range and default, with `%` doubled for argparse."""
    names = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    limits = [
        f"{sign} {getattr(item, name)}"
        for item in field.metadata
        for name, sign in names.items()
        if getattr(item, name, None) is not None and getattr(item, name) < 2**31
    ]
    aliases = [alias for alias, target in ALIASES.items() if target == key and alias not in field.description]
    default = "required" if field.is_required() else f"default {field.default}"
    if field.default is None:
        default = ""
    notes = "; ".join(note for note in [", ".join(limits), default, *aliases] if note)
    text: str = field.description + (f" ({notes})" if notes else "")
    return text.replace("%", "%%")
