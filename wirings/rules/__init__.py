"""Edge rules by name: one file each, which defines one class. Naming a rule imports its file only."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING

from wirings.errors import WiringError
from wirings.names import did_you_mean

if TYPE_CHECKING:
    from wirings.rules.base import EdgeRule, EdgeSpace

RULES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base"))
"""Names of the rules, those of the files in this folder: a rule is added by adding its file."""


def find_rule(rule: str | type[EdgeRule]) -> type[EdgeRule]:
    """The class of a rule.

    Args:
        rule: a name of RULES, or a subclass of EdgeRule.

    Raises:
        WiringError: there is no such rule, it is no subclass of EdgeRule, or it does not define `select`.
    """
    if not isinstance(rule, str):
        check_rule(rule, getattr(rule, "__qualname__", repr(rule)))
        return rule
    if rule not in RULES:
        hint = did_you_mean(rule, RULES)
        raise WiringError(f"rule must be one of {', '.join(RULES)}, got {rule}{hint}")
    from wirings.rules.base import EdgeRule

    module = importlib.import_module(f"{__name__}.{rule}")
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, EdgeRule) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        names = ", ".join(found.__name__ for found in classes) or "none"
        raise WiringError(f"{module.__name__} must define one subclass of EdgeRule, it defines {names}")
    return classes[0]


def check_rule(rule: object, name: str) -> None:
    """Refuse what is not an edge rule.

    Raises:
        WiringError: it is no subclass of EdgeRule, or it does not define `select`.
    """
    from wirings.rules.base import EdgeRule

    if not (inspect.isclass(rule) and issubclass(rule, EdgeRule)):
        raise WiringError(f"{name} is no subclass of wirings.rules.base.EdgeRule")
    if inspect.isabstract(rule):
        raise WiringError(f"{name} must define select(), which returns a wirings.selection.EdgeSelection")


def make_rule(rule: str | type[EdgeRule], space: EdgeSpace, num_edges: int, **options: object) -> EdgeRule:
    """The rule of one layer.

    Args:
        rule: a name of RULES, or a subclass of EdgeRule.
        space: the potential edges.
        num_edges: how many of them may be in use. A rule that takes `prune_rate` gets the fraction left out.
        options: further arguments of the rule.

    Raises:
        WiringError: there is no such rule, it does not take an option, or it lacks one.
    """
    kind = find_rule(rule)
    name = rule if isinstance(rule, str) else kind.__qualname__
    parameters = inspect.signature(kind).parameters
    accepted = [key for key in parameters if key not in ("space", "num_edges")]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for key in options:
            if key not in accepted:
                takes = f"it takes {', '.join(accepted)}" if accepted else "it takes no options"
                raise WiringError(f"rule {name} has no option {key}; {takes}{did_you_mean(key, accepted)}")
    if "prune_rate" in parameters and "prune_rate" not in options:
        options["prune_rate"] = 1 - num_edges / max(space.numel, 1)
    for key in accepted:
        parameter = parameters[key]
        is_argument = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if is_argument and parameter.default is parameter.empty and key not in options:
            raise WiringError(f"rule {name} needs the option {key}")
    return kind(space=space, num_edges=num_edges, **options)
