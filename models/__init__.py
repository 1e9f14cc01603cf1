"""Networks, and the construction of an experiment's network: `build_model`."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from genutil.config import Config
from genutil.config.components import ComponentBuilder, convert_arguments, locate
from genutil.exceptions import ConfigError
from genutil.memory import sizes_checked
from genutil.seeding import restore_rng_state, rng_state
from models.graphs.edges import EdgeRule, PotentialEdges, locate_rule
from wirings.budgets import GLOBAL, Budget
from wirings.densities import DENSITY_SCHEDULES, DensitySchedule, find_density_schedule
from wirings.errors import WiringError
from wirings.rules import COMMON_ARGUMENTS, schedule_of_rule
from wirings.topk import num_kept
from wirings.wiring import Wiring, count_edges, rank_together, wire


def build_model(config: Config, builder: ComponentBuilder | None = None) -> nn.Module:
    """The network of `config.model`, with the published state-dict names.

    Args:
        config: the experiment. The class gets the keys that are arguments of its constructor. Further
            arguments may be `make_rule`, also under the name `edges`, which makes an edge rule (see
            models.graphs.edges.RuleMaker), and `wire`, which wires the layers of a module.
        builder: records which keys are used; a new one by default.

    Raises:
        ConfigError: there is no such class, it is not a network, or it refuses its arguments.
    """
    builder = builder or ComponentBuilder(config)
    factory = _RuleFactory(config, builder)
    saved_rng_state = rng_state() if config.budget is not None else None
    model = _build(config, builder, factory)
    if saved_rng_state is not None and factory.rules:
        # A budget needs the shapes of all layers, which are known only after the construction. The second
        # network draws the same random numbers as the first.
        with _as_config_error("budget"):
            factory.counts = _counts(config, factory.rules, model)
        del model
        restore_rng_state(saved_rng_state)
        model = _build(config, builder, factory)
        if config.budget == GLOBAL:
            with _as_config_error("budget"):
                rank_together(Wiring(model).rules)
    return model


def _build(config: Config, builder: ComponentBuilder, factory: _RuleFactory) -> nn.Module:
    network_class = locate(config.model, "model")
    arguments: dict[str, Any] = {
        "make_rule": factory.make_rule,
        "edges": factory.make_rule,
        "wire": factory.wire,
    }
    factory.rules.clear()
    with sizes_checked(f"model: {config.model}", builder.sizes_used):
        model = builder.build_named("model", network_class, "model_args", **arguments)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model: {config.model} is not a torch.nn.Module")
    return model


class _RuleFactory:
    """Makes the edge rules of an experiment's network.

    Attributes:
        rules: those that `make_rule` has made for the current network, in order. A network must make them in
            the same order each time it is constructed.
        counts: number of edges of each of them, in this order, by the key `budget`; None: by the prune rate
            of each.
    """

    def __init__(self, config: Config, builder: ComponentBuilder) -> None:
        self._config, self._builder = config, builder
        self.rules: list[EdgeRule] = []
        self.counts: list[int] | None = None

    def make_rule(
        self, potential: PotentialEdges, *, num_edges: int | None = None, prune_rate: float | None = None
    ) -> EdgeRule:
        """The rule of one weight: see models.graphs.edges.RuleMaker."""
        config = self._config
        if self.counts is not None:
            num_edges = self.counts[len(self.rules)]
            prune_rate = 1 - num_edges / max(potential.numel, 1)
        elif num_edges is None:
            num_edges = num_kept(potential.numel, config.prune_rate if prune_rate is None else prune_rate)
        self._builder.used.add("prune_rate")
        arguments: dict[str, Any] = {"potential": potential, "num_edges": num_edges}
        if prune_rate is not None:
            arguments["prune_rate"] = prune_rate
        rule_class = locate_rule(config.graph)
        with _as_config_error("density_schedule"):
            schedule = schedule_of_rule(rule_class, self._density_schedule())
        if schedule is not None:
            arguments["schedule"] = schedule
        rule: EdgeRule = self._builder.build_named("graph", rule_class, "graph_args", **arguments)
        self.rules.append(rule)
        return rule

    def _density_schedule(self) -> DensitySchedule | None:
        """The schedule that the experiment names."""
        config = self._config
        if config.density_schedule is None:
            if config.density_schedule_args:
                raise ConfigError("density_schedule_args: name the schedule with density_schedule")
            return None
        with _as_config_error("density_schedule_args"):
            arguments = convert_arguments(
                DENSITY_SCHEDULES[config.density_schedule],
                config.density_schedule_args,
                "density_schedule_args",
            )
            return find_density_schedule(config.density_schedule, **arguments)

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
        config, rule_class = self._config, locate_rule(self._config.graph)
        parameters = set(inspect.signature(rule_class).parameters) - set(COMMON_ARGUMENTS)
        keys = (parameters & set(Config.model_fields)) - {"prune_rate"}
        self._builder.used |= keys | {"prune_rate"}
        options = {key: getattr(config, key) for key in sorted(keys)}
        options |= self._builder.extra_arguments(rule_class, "graph_args", COMMON_ARGUMENTS)
        budget = default_budget if config.budget is None else find_budget(config)
        with _as_config_error("wire"):
            return wire(
                module,
                rule_class,
                1 - config.prune_rate,
                budget,
                include,
                exclude,
                self._density_schedule(),
                **options,
            )


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


def _counts(config: Config, rules: Sequence[EdgeRule], model: nn.Module) -> list[int]:
    """Number of edges of each of the rules, by the budget."""
    by_name = Wiring(model).rules
    counts = count_edges(_shapes(by_name), 1 - config.prune_rate, find_budget(config))
    by_rule = {id(rule): counts[name] for name, rule in by_name.items()}
    return [by_rule.get(id(rule), rule.num_edges) for rule in rules]


def _shapes(rules: Mapping[str, EdgeRule]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(rule.weight.shape) for name, rule in rules.items()}


@contextlib.contextmanager
def _as_config_error(key: str) -> Iterator[None]:
    try:
        yield
    except WiringError as error:
        raise ConfigError(f"{key}: {error}") from error
