"""Edge rules of experiments: `locate_rule` for the key `graph`, and the classes of wirings.rules."""

from __future__ import annotations

from typing import Protocol

from genutil.config.components import locate
from wirings.names import did_you_mean
from wirings.rules import RULES, check_rule, find_rule
from wirings.rules.base import EdgeRule, EdgeSpace, PotentialEdges
from wirings.rules.complete import AllEdges
from wirings.rules.dnw import TopEdges
from wirings.rules.dnw_no_update import TopEdgesWithoutUpdate
from wirings.rules.fine_tune import FixedTopEdges
from wirings.rules.random import RandomEdges
from wirings.rules.reg_td import TargetedDropoutByRow
from wirings.rules.td import TargetedDropout

__all__ = [
    "AllEdges",
    "EdgeRule",
    "EdgeSpace",
    "FixedTopEdges",
    "PotentialEdges",
    "RandomEdges",
    "RuleMaker",
    "TargetedDropout",
    "TargetedDropoutByRow",
    "TopEdges",
    "TopEdgesWithoutUpdate",
    "locate_rule",
]


class RuleMaker(Protocol):
    """The argument `make_rule` of a network: makes a rule with the experiment's class, options and budget."""

    def __call__(
        self, potential: PotentialEdges, *, num_edges: int | None = None, prune_rate: float | None = None
    ) -> EdgeRule:
        """The rule of one weight.

        Args:
            potential: the potential edges.
            num_edges: number of edges in use; None: by `prune_rate`. The key `budget` overrides both.
            prune_rate: fraction of the edges that is not in use; None: that of the experiment.
        """


def locate_rule(graph: str) -> type[EdgeRule]:
    """The class of the rule that the key `graph` names.

    Args:
        graph: a name of `wirings.rules.RULES`, or `module:Class`.

    Raises:
        ConfigError: the module or class of `module:Class` does not exist.
        ValueError: there is no such rule, it is not an EdgeRule, or it does not define `select`.
    """
    if graph in RULES:
        return find_rule(graph)
    if ":" not in graph:
        hint = did_you_mean(graph, RULES)
        raise ValueError(f"graph must be one of {', '.join(RULES)} or module:Class, got {graph}{hint}")
    rule_class: type[EdgeRule] = locate(graph, "graph")
    check_rule(rule_class, f"graph: {graph}")
    return rule_class
