"""Components of an experiment, built from `module:Class` names; arguments get the keys of the same name."""

from __future__ import annotations

import inspect
import logging
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from genutil.config.resolve import Config
from genutil.config.schema import EvaluationKeys, NetworkKeys, TrainingKeys, WiringKeys, schema
from genutil.exceptions import ConfigError
from genutil.user_code import is_user_code, user_code_error, user_code_errors_explained
from wirings.errors import UnknownNameError
from wirings.names import did_you_mean, import_object

_log = logging.getLogger(__name__)


def locate(path: str, key: str) -> Any:
    """The object that `module:Name` names.

    Raises:
        ConfigError: there is no such module or name in it, or importing it raises an error; `key` says which
            line of the experiment is meant.
    """
    try:
        return import_object(path)
    except UnknownNameError as error:
        raise ConfigError(f"{key}: {error}") from error
    except (Exception, SystemExit) as error:
        if not is_user_code(path):
            raise
        module = path.partition(":")[0]
        raise user_code_error(f"{key}: importing {module}", error, path) from error


def takes(target: Callable[..., Any], key: str) -> bool:
    """Whether a class or function has an argument of this name; True where its arguments are not known."""
    try:
        return key in inspect.signature(target).parameters
    except (TypeError, ValueError):
        return True


def named_components(config: Config) -> dict[str, str]:
    """The components that an experiment names as `module:Name`, by key."""
    values = {
        key: str(getattr(config, key)) for key in ("model", "data", "graph", "optimizer", "lr_scheduler")
    }
    if isinstance(config.budget, str):
        values["budget"] = config.budget
    values |= {f"callbacks: {number}": path for number, path in enumerate(config.callbacks)}
    return {key: value for key, value in values.items() if ":" in value}


class ComponentBuilder:
    """Calls classes and functions with the keys of the same names as their arguments; records keys used."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.used: set[str] = set()

    def build_named(
        self, key: str, target: Any, args_key: str | None = None, path: str | None = None, **fixed: Any
    ) -> Any:
        """`build` for the class or function that the experiment's `key` names, or `path` of a list.

        Raises:
            ConfigError: see `build`; or `target` is the user's own code and raises an error.
        """
        path = path or str(getattr(self.config, key))
        if not callable(target):
            raise ConfigError(f"{key}: {path} is not a class or function")
        if ":" not in path or not is_user_code(path):
            return self.build(target, args_key, **fixed)
        with user_code_errors_explained(f"{key}: {path}", path):
            return self.build(target, args_key, **fixed)

    def build(self, target: Callable[..., Any], args_key: str | None = None, **fixed: Any) -> Any:
        """Call a class or function. Each of its arguments has the first of these values: the one in
        `args_key`, the one in `fixed`, the one of the key of the same name, its default.

        Args:
            target: the class or function.
            args_key: key of a mapping of arguments, such as `model_args`; None: there is none.
            fixed: arguments that the program determines. Those that the target does not take are ignored.

        Raises:
            ConfigError: an argument has no value, `args_key` has one that the target does not take or that is
                fixed, or a target of this project refuses its arguments with a ValueError.
        """
        name, parameters = _name_of(target), _parameters_of(target)
        arguments = self.extra_arguments(target, args_key, fixed) if args_key else {}
        for key, parameter in parameters.items():
            if key in arguments or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            if key in fixed:
                arguments[key] = fixed[key]
            elif key in Config.model_fields:
                arguments[key] = getattr(self.config, key)
                self.used.add(key)
            elif parameter.default is parameter.empty:
                where = f"; give it in {args_key}" if args_key else ""
                raise ConfigError(f"{name} needs the argument {key}, which is not a key{where}")
        try:
            return target(**arguments)
        except ConfigError:
            raise
        except ValueError as error:
            if is_user_code(str(getattr(target, "__module__", ""))):
                raise
            raise ConfigError(f"{name}: {error}") from error

    def extra_arguments(
        self, target: Callable[..., Any], args_key: str, fixed: Collection[str]
    ) -> dict[str, Any]:
        """The arguments in `args_key`, such as `model_args`, in the types of the target's annotations.

        Raises:
            ConfigError: the target does not take one of them, or it is in `fixed`, which other keys set.
        """
        name, parameters = _name_of(target), _parameters_of(target)
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        extra: Mapping[str, Any] = getattr(self.config, args_key)
        for key in extra:
            if key in parameters and key in fixed:
                raise ConfigError(f"{args_key}: {key} is set by the experiment's other keys; remove it")
            if key not in parameters and not takes_any:
                hint = did_you_mean(key, set(parameters) - set(fixed))
                raise ConfigError(f"{args_key}: {name} takes no argument {key}{hint}")
        self.used.add(args_key)
        return dict(convert_arguments(target, extra, f"{args_key} of {name}"))

    def sizes_used(self) -> dict[str, float]:
        """The sizes among the keys used so far, with their values."""
        keys = ("batch_size", *NetworkKeys.model_fields)
        values = {key: getattr(self.config, key) for key in keys if key in self.used}
        return {key: value for key, value in values.items() if type(value) in (int, float)}

    def warn_of_unused(self) -> None:
        """Warn of the keys that were set explicitly and that no component uses.

        Keys of the network and the wiring are reported if the experiment's own file or the command line sets
        them; keys of training and evaluation only if the command line does. In an evaluation or export, keys
        of the training are not reported, since they are part of the same experiment.
        """
        trains = not (self.config.evaluate or self.config.export)
        groups = (TrainingKeys, EvaluationKeys) if trains else (EvaluationKeys,)
        component_keys = {*NetworkKeys.model_fields, *WiringKeys.model_fields, "data_backend"}
        run_keys = {key for group in groups for key in group.model_fields}
        relevant = (self.config.explicit() & component_keys) | (set(self.config.overrides) & run_keys)
        read_by_experiment = {
            key for key, field in schema().items() if field.json_schema_extra["read_by_experiment"]
        }
        unused = sorted(relevant - self.used - read_by_experiment)
        if unused:
            _log.warning("no effect in this experiment: %s", ", ".join(unused))


def _name_of(target: Callable[..., Any]) -> str:
    return str(getattr(target, "__qualname__", repr(target)))


def _parameters_of(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except ValueError as error:  # some types written in C have none
        raise ConfigError(f"{_name_of(target)} has no signature; name a Python class or function") from error


def convert_arguments(target: Callable[..., Any], values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Values in the types that the target's annotations ask for, since text from a command line has none.

    Args:
        target: a class or function.
        values: by argument.
        where: begins the message of an error.

    Raises:
        ConfigError: a value does not have the type.
    """
    if not values:
        return {}
    function = target.__init__ if inspect.isclass(target) else target
    hints = typing.get_type_hints(function)
    arguments = {}
    for key, value in values.items():
        try:
            arguments[key] = TypeAdapter(hints[key]).validate_python(value) if key in hints else value
        except ValidationError as error:
            raise ConfigError(f"{where}: {key} {error.errors()[0]['msg']}, got {value!r}") from error
    return arguments
