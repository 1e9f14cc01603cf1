"""Edge rules by name, one file each. Naming a rule imports its file alone."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING

from wirings.errors import WiringError
from wirings.names import did_you_mean

if TYPE_CHECKING:
    from wirings.rules.base import EdgeRule, EdgeSpace

RULES = {
    "dnw": "wirings.rules.dnw:TopEdges",
    "random": "wirings.rules.random:RandomEdges",
    "complete": "wirings.rules.complete:AllEdges",
    "dnw_no_update": "wirings.rules.dnw_no_update:TopEdgesWithoutUpdate",
    "fine_tune": "wirings.rules.fine_tune:FixedTopEdges",
    "td": "wirings.rules.targeted_dropout:TargetedDropout",
    "reg_td": "wirings.rules.targeted_dropout:TargetedDropoutByRow",
}
"""module:Class of each rule, by its name in experiments."""


def find_rule(rule: str | type[EdgeRule]) -> type[EdgeRule]:
    """The class of a rule.

    Args:
        rule: a name of RULES, or a subclass of EdgeRule.

    Raises:
        WiringError: there is no such rule, it is no subclass of EdgeRule, or it does not define `select`.
    """
    if isinstance(rule, str):
        if rule not in RULES:
            raise WiringError(
                f"rule must be one of {', '.join(RULES)}, got {rule}{did_you_mean(rule, RULES)}"
            )
        module, _, name = RULES[rule].partition(":")
        kind: type[EdgeRule] = getattr(importlib.import_module(module), name)
        return kind
    check_rule(rule, getattr(rule, "__qualname__", repr(rule)))
    return rule


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
