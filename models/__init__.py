"""Networks: wired graphs, and `build_model`, which makes any of them from an experiment."""

from __future__ import annotations

from typing import Any

from torch import nn

from genutil.allocation import sizes_checked
from genutil.components import Parts, locate
from genutil.config import Config
from genutil.errors import ConfigError
from models.graphs.edges import EdgeRule, EdgeSpace, find_rule
from wirings.topk import num_kept


def build_model(config: Config, parts: Parts | None = None) -> nn.Module:
    """The network that `config.model` names, with the published state-dict names.

    Args:
        config: the experiment; keys that the class names as arguments are handed to it.
        parts: notes which keys were used; a fresh one by default.

    Raises:
        ConfigError: there is no such class, it is no network, or it refuses its arguments.
    """
    parts = parts or Parts(config)

    def edges(space: EdgeSpace, **given: Any) -> EdgeRule:
        if "num_edges" not in given:
            given["num_edges"] = num_kept(space.numel, given.get("prune_rate", config.prune_rate))
            parts.used.add("prune_rate")
        kind = find_rule(config.graph)
        rule: EdgeRule = parts.make_named("graph", kind, "graph_args", space=space, **given)
        return rule

    kind = locate(config.model, "model")
    with sizes_checked(f"model: {config.model}", parts.sizes_used):
        model = parts.make_named("model", kind, "model_args", edges=edges)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model: {config.model} is no torch.nn.Module")
    return model
