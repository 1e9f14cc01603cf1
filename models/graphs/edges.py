"""Edge rules for experiments, by the name in `graph`; the classes are those of wirings.rules."""

from __future__ import annotations

from collections.abc import Callable

from genutil.config.components import locate
from wirings.names import did_you_mean
from wirings.rules import RULES, check_rule
from wirings.rules import find_rule as find_named
from wirings.rules.base import EdgeRule, EdgeSpace
from wirings.rules.complete import AllEdges
from wirings.rules.dnw import TopEdges
from wirings.rules.dnw_no_update import TopEdgesWithoutUpdate
from wirings.rules.fine_tune import FixedTopEdges
from wirings.rules.random import RandomEdges
from wirings.rules.reg_td import TargetedDropoutByRow
from wirings.rules.td import TargetedDropout

__all__ = [
    "EDGE_RULES",
    "AllEdges",
    "EdgeMaker",
    "EdgeRule",
    "EdgeSpace",
    "FixedTopEdges",
    "RandomEdges",
    "TargetedDropout",
    "TargetedDropoutByRow",
    "TopEdges",
    "TopEdgesWithoutUpdate",
    "find_rule",
]

EDGE_RULES: dict[str, type[EdgeRule]] = {name: find_named(name) for name in RULES}

EdgeMaker = Callable[..., EdgeRule]
"""Makes the edge rule of a space: `edges(space)`, or with the layer's own budget `num_edges=…` or
`prune_rate=…`."""


def find_rule(graph: str) -> type[EdgeRule]:
    """The rule of this name, or of `module:Class`.

    Raises:
        ValueError: there is no such rule, it is no EdgeRule, or it does not define `select`.
    """
    if ":" not in graph and graph not in RULES:
        hint = did_you_mean(graph, RULES)
        raise ValueError(f"graph must be one of {', '.join(RULES)} or module:Class, got {graph}{hint}")
    if graph in RULES:
        return find_named(graph)
    rule: type[EdgeRule] = locate(graph, "graph")
    check_rule(rule, f"graph: {graph}")
    return rule
