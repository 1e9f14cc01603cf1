"""Networks, and `build_model`, which builds that of an experiment."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from genutil.config import Config
from genutil.config.components import ComponentBuilder, converted, locate
from genutil.exceptions import ConfigError
from genutil.memory import sizes_checked
from genutil.seeding import restore_rng_state, rng_state
from models.graphs.edges import EdgeRule, EdgeSpace, find_rule
from wirings.budgets import GLOBAL, Budget, total_edges
from wirings.errors import WiringError
from wirings.topk import num_kept
from wirings.wiring import Wiring, count_edges, rank_together, wire


def build_model(config: Config, parts: ComponentBuilder | None = None) -> nn.Module:
    """The network of `config.model`, with the published state-dict names.

    Args:
        config: the experiment. The class gets the keys that are arguments of its constructor; further
            arguments may be `edges`, which makes the edge rule of an EdgeSpace, and `wire`, which wires the
            layers of a module.
        parts: records which keys are used; a new one by default.

    Raises:
        ConfigError: there is no such class, it is no network, or it refuses its arguments.
    """
    parts = parts or ComponentBuilder(config)
    rules = _Rules(config, parts)
    random_numbers = rng_state() if config.budget is not None else None
    model = _build(config, parts, rules)
    if random_numbers is not None and rules.made:
        # A budget needs the shapes of all layers, which are known only after the construction.
        with _as_config_error("budget"):
            rules.counts = _counts(config, rules.made, model)
        del model
        restore_rng_state(random_numbers)
        model = _build(config, parts, rules)
        if config.budget == GLOBAL:
            with _as_config_error("budget"):
                by_name = Wiring(model).rules
                rank_together(by_name, total_edges(_shapes(by_name), 1 - config.prune_rate))
    return model


def _build(config: Config, parts: ComponentBuilder, rules: _Rules) -> nn.Module:
    kind = locate(config.model, "model")
    rules.made.clear()
    with sizes_checked(f"model: {config.model}", parts.sizes_used):
        model = parts.build_named("model", kind, "model_args", edges=rules.edges, wire=rules.wire)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model: {config.model} is no torch.nn.Module")
    return model


class _Rules:
    """Makes the edge rules of an experiment's network.

    Attributes:
        made: the rules that `edges` has made for the current network, in order.
        counts: number of edges of each of them; None: as published, by the prune rate of each space.
    """

    def __init__(self, config: Config, parts: ComponentBuilder) -> None:
        self._config, self._parts = config, parts
        self.made: list[EdgeRule] = []
        self.counts: list[int] | None = None

    def edges(self, space: EdgeSpace, **budget: Any) -> EdgeRule:
        """The rule of one space. `num_edges=…` or `prune_rate=…` gives it a budget of its own."""
        config = self._config
        if self.counts is not None:
            budget["num_edges"] = self.counts[len(self.made)]
            budget["prune_rate"] = 1 - budget["num_edges"] / max(space.numel, 1)
        elif "num_edges" not in budget:
            budget["num_edges"] = num_kept(space.numel, budget.get("prune_rate", config.prune_rate))
        self._parts.used.add("prune_rate")
        kind = find_rule(config.graph)
        rule: EdgeRule = self._parts.build_named("graph", kind, "graph_args", space=space, **budget)
        self.made.append(rule)
        return rule

    def wire(
        self,
        module: nn.Module,
        include: str | Iterable[str] | None = None,
        exclude: str | Iterable[str] | None = None,
        default_budget: str | Budget = "uniform",
    ) -> Wiring:
        """`wirings.wire` with the experiment's rule, budget and prune rate.

        `default_budget` is used where the experiment has none.
        """
        config, kind = self._config, find_rule(self._config.graph)
        keys = set(inspect.signature(kind).parameters) & set(Config.model_fields) - {"prune_rate"}
        self._parts.used |= keys | {"prune_rate", "graph_args"}
        options = {key: getattr(config, key) for key in sorted(keys)}
        options |= converted(kind, config.graph_args, f"graph_args of {config.graph}")
        budget = default_budget if config.budget is None else find_budget(config)
        with _as_config_error("wire"):
            return wire(module, kind, 1 - config.prune_rate, budget, include, exclude, **options)


def find_budget(config: Config) -> str | Mapping[str, float] | Budget:
    """The experiment's `budget` as an argument of `wirings.wire`.

    Raises:
        ConfigError: there is no such function.
    """
    assert config.budget is not None
    if isinstance(config.budget, str) and ":" in config.budget:
        function: Budget = locate(config.budget, "budget")
        return function
    return config.budget


def _counts(config: Config, made: Sequence[EdgeRule], model: nn.Module) -> list[int]:
    """Number of edges of each rule, in the order in which the rules were made."""
    rules = Wiring(model).rules
    counts = count_edges(_shapes(rules), 1 - config.prune_rate, find_budget(config))
    by_rule = {id(rule): counts[name] for name, rule in rules.items()}
    return [by_rule.get(id(rule), rule.num_edges) for rule in made]


def _shapes(rules: Mapping[str, EdgeRule]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(rule.weight.shape) for name, rule in rules.items()}


@contextlib.contextmanager
def _as_config_error(key: str) -> Iterator[None]:
    try:
        yield
    except WiringError as error:
        raise ConfigError(f"{key}: {error}") from error
