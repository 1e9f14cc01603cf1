"""Edge rules by name: each file in `wirings/rules` defines the class of one rule.

This module does not import torch; `find_rule` imports the file of one rule, and torch with it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wirings.errors import WiringError
from wirings.names import did_you_mean

if TYPE_CHECKING:
    from wirings.densities import DensitySchedule
    from wirings.rules.base import EdgeRule, PotentialEdges

_PACKAGE = "wirings.rules"
_FOLDER = Path(__file__).parent / "rules"
RULES = tuple(sorted(module.name for module in pkgutil.iter_modules([str(_FOLDER)]) if module.name != "base"))
"""Names of the rules, those of the files: a rule is added by adding its file."""
COMMON_ARGUMENTS = ("potential", "num_edges", "schedule")
"""Arguments of a rule's constructor that are not options of the rule."""


def find_rule(rule: str | type[EdgeRule]) -> type[EdgeRule]:
    """The class of a rule.

    Args:
        rule: a name of RULES, or a subclass of EdgeRule.

    Raises:
        WiringError: there is no such rule, it is not a subclass of EdgeRule, or it does not define `select`.
    """
    if not isinstance(rule, str):
        check_rule(rule, getattr(rule, "__qualname__", repr(rule)))
        return rule
    if rule not in RULES:
        hint = did_you_mean(rule, RULES)
        raise WiringError(f"rule must be one of {', '.join(RULES)}, got {rule}{hint}")
    from wirings.rules.base import EdgeRule

    module = importlib.import_module(f"{_PACKAGE}.{rule}")
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, EdgeRule) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        names = ", ".join(rule_class.__name__ for rule_class in classes) or "none"
        raise WiringError(f"{module.__name__} must define one subclass of EdgeRule, it defines {names}")
    return classes[0]


def rule_name(rule_class: type[EdgeRule]) -> str:
    """The name of a rule in RULES, or that of the class of a rule of your own."""
    package, _, name = rule_class.__module__.rpartition(".")
    return name if package == _PACKAGE and name in RULES else rule_class.__qualname__


def options_of(rule: str) -> tuple[str, ...]:
    """Names of the options of a rule: the arguments of its constructor after the potential edges and their
    number. They are read from the source, so that experiments are checked without importing torch.

    Args:
        rule: a name of RULES.
    """
    for definition in _class_definitions(f"rules.{rule}"):
        for node in definition.body:
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                names = [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
                return tuple(name for name in names if name not in ("self", *COMMON_ARGUMENTS))
    return ()


def has_fixed_wiring(rule: str) -> bool:
    """`EdgeRule.has_fixed_wiring` of a rule's class, read from the source as by `options_of`.

    Args:
        rule: a name of RULES.
    """
    for definition in _class_definitions(f"rules.{rule}"):
        for node in definition.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == "has_fixed_wiring" for target in targets):
                return bool(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    return False


def _class_definitions(module: str, name: str | None = None) -> Iterator[ast.ClassDef]:
    """The class of a rule in its source, then its bases in other files of this library.

    Args:
        module: below `wirings`, such as `rules.dnw`.
        name: of the class; None: the first one with a base class of this library.
    """
    path = _FOLDER.parent.joinpath(*module.split(".")).with_suffix(".py")
    source = ast.parse(path.read_text(encoding="utf-8"))
    modules = {
        alias.name: node.module.removeprefix("wirings.")
        for node in source.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("wirings.")
        for alias in node.names
    }
    for definition in source.body:
        if isinstance(definition, ast.ClassDef):
            bases = [base.id for base in definition.bases if isinstance(base, ast.Name)]
            if definition.name == name or (name is None and any(base in modules for base in bases)):
                yield definition
                for base in bases:
                    yield from _class_definitions(modules.get(base, module), base)
                return


def check_rule(rule: object, name: str) -> None:
    """Refuse what is not an edge rule.

    Raises:
        WiringError: it is not a subclass of EdgeRule, or it does not define `select`.
    """
    from wirings.rules.base import EdgeRule

    if not (inspect.isclass(rule) and issubclass(rule, EdgeRule)):
        raise WiringError(f"{name} is not a subclass of wirings.rules.base.EdgeRule")
    if inspect.isabstract(rule):
        raise WiringError(f"{name} must define select(), which returns a wirings.selection.EdgeSelection")


def build_rule(
    rule: str | type[EdgeRule],
    potential: PotentialEdges,
    num_edges: int,
    schedule: DensitySchedule | None = None,
    **options: Any,
) -> EdgeRule:
    """The rule of one layer.

    Args:
        rule: a name of RULES, or a subclass of EdgeRule.
        potential: the potential edges.
        num_edges: number of edges in use. A rule with the option `prune_rate` gets the fraction of
            the others.
        schedule: number of edges in use during the training; None: that of the rule's publication, else
            always that of the budget.
        options: further arguments of the rule.

    Raises:
        WiringError: there is no such rule, it does not take an option or a schedule, or it lacks an option.
    """
    rule_class = find_rule(rule)
    name = rule_name(rule_class)
    parameters = inspect.signature(rule_class).parameters
    accepted = [key for key in parameters if key not in COMMON_ARGUMENTS]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for key in options:
            if key not in accepted:
                takes = f"it takes {', '.join(accepted)}" if accepted else "it takes no options"
                raise WiringError(f"rule {name} has no option {key}; {takes}{did_you_mean(key, accepted)}")
    if "prune_rate" in parameters and "prune_rate" not in options:
        options["prune_rate"] = 1 - num_edges / max(potential.numel, 1)
    for key in accepted:
        parameter = parameters[key]
        is_argument = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if is_argument and parameter.default is parameter.empty and key not in options:
            raise WiringError(f"rule {name} needs the option {key}")
    schedule = schedule_of_rule(rule_class, schedule)
    if schedule is not None:
        options["schedule"] = schedule
    return rule_class(potential=potential, num_edges=num_edges, **options)


def schedule_of_rule(rule_class: type[EdgeRule], schedule: DensitySchedule | None) -> DensitySchedule | None:
    """The density schedule of a rule: the one that is asked for, else that of its publication, else None.

    Raises:
        WiringError: the rule does not take a schedule.
    """
    if schedule is None:
        return rule_class.default_schedule
    if rule_class.has_fixed_wiring or "schedule" not in inspect.signature(rule_class).parameters:
        raise WiringError(f"rule {rule_name(rule_class)} does not take a density schedule; remove it")
    return schedule
