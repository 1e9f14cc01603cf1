"""Wiring of any network: `wire`, `unwire`, and `Wiring`, all edge rules of a network as one object.

wiring = wirings.wire(model, rule="dnw", density=0.1)
...                                            # training as usual; before each optimizer.step():
wiring.after_backward(optimizer, step, total_steps)
print(wiring.summary())
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from wirings.budgets import BUDGETS, GLOBAL, Budget, by_pattern, check_counts, total_edges
from wirings.densities import DensitySchedule, find_density_schedule
from wirings.errors import WiringError
from wirings.layers import (
    LAYER_TYPES,
    WiredLayer,
    check_layer,
    potential_edges_of,
    unwire_layer,
    weight_of,
    weights_in_evaluation,
    wire_layer,
)
from wirings.names import did_you_mean
from wirings.ranking import GlobalRanking
from wirings.rules import build_rule, rule_name
from wirings.rules.base import EdgeRule, RankedEdges, Step, accept_unwired_checkpoint
from wirings.selection import EdgeSelection
from wirings.structure import effective_edges, liveness, stages
from wirings.wiring_summary import LayerSummary, WiringSummary

_Network = TypeVar("_Network", bound=nn.Module)


class Wiring:
    """All edge rules of a network, by the names of their weights in its state dict.

    Args:
        model: a network that `wire` has wired, or one whose own modules are edge rules.

    Attributes:
        rules: by name, in the order of the network's modules.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.rules: dict[str, EdgeRule] = {}
        for name, module in model.named_modules():
            if isinstance(module, WiredLayer):
                self.rules[_join(name, "weight")] = module.wiring
            elif isinstance(module, EdgeRule) and module.potential.layer is None:
                self.rules[_join(name, "weight")] = module
        wired = {id(rule.weight) for rule in self.rules.values()}
        self._dense = tuple(
            _join(name, "weight")
            for name, module in model.named_modules()
            if isinstance(module, LAYER_TYPES) and id(module._parameters.get("weight")) not in wired
        )

    def selections(self) -> dict[str, EdgeSelection]:
        """The edges in use of each layer."""
        with torch.no_grad():
            return {name: rule.selection() for name, rule in self.rules.items()}

    def adjacency(self) -> dict[str, Tensor]:
        """Boolean tensors of the weights' shapes, by name: true where an edge is in use."""
        return {name: selection.mask().clone() for name, selection in self.selections().items()}

    def state(self) -> dict[str, Tensor]:
        """int64 indices of the edges in use within each flattened weight, ascending, on the CPU: a small
        record of the wiring that can be saved and compared.
        """
        return {name: selection.indices().cpu().clone() for name, selection in self.selections().items()}

    def churn(self, before: Mapping[str, Tensor]) -> dict[str, float]:
        """Fraction of each layer's edges in use that were not in use before, and of all under `total`.

        Args:
            before: result of an earlier `state()`.

        Raises:
            WiringError: it has other layers.
        """
        current = self.state()
        if set(before) != set(current):
            names = sorted(set(before) ^ set(current))
            raise WiringError(
                f"the state is that of another network: only one of them has {', '.join(names)}"
            )
        new = {name: int((~torch.isin(current[name], before[name])).sum()) for name in current}
        fractions = {name: new[name] / max(len(current[name]), 1) for name in current}
        return {**fractions, "total": sum(new.values()) / max(sum(map(len, current.values())), 1)}

    @property
    def has_after_backward(self) -> bool:
        """Whether a rule acts on the gradients or has a density schedule, so that `after_backward` must be
        called in each step.
        """
        return any(
            rule.schedule is not None or type(rule).after_backward is not EdgeRule.after_backward
            for rule in self.rules.values()
        )

    def after_backward(self, optimizer: torch.optim.Optimizer, step: int, total_steps: int) -> None:
        """Call `after_backward` and `follow_schedule` of every rule.

        To be called in training after the backward pass (with several processes: after the gradients are
        reduced) and before `optimizer.step()`.

        Args:
            optimizer: makes the update next.
            step: index of the step, from 0.
            total_steps: number of steps of the training.
        """
        current = Step(step, total_steps, optimizer)
        for rule in self.rules.values():
            rule.after_backward(current)
            rule.follow_schedule(current)

    def check_counts(self) -> None:
        """Check that each rule has exactly as many edges in use as it must. Fixed wirings are not checked:
        they may come from a file, and do not change.

        Raises:
            WiringError: a rule that promises an exact number of edges has another one.
        """
        selections = self.selections()
        ranked: dict[int, GlobalRanking] = {}
        for name, rule in self.rules.items():
            ranking = getattr(rule, "ranking", None)
            if ranking is not None:
                ranked[id(ranking)] = ranking
            elif (
                rule.has_exact_count
                and not rule.has_fixed_wiring
                and selections[name].count != rule.num_edges
            ):
                raise WiringError(
                    f"{name}: {selections[name].count} edges are in use, but the rule "
                    f"{rule_name(type(rule))} must use {rule.num_edges}"
                )
        for ranking in ranked.values():
            ranked_ids = {id(rule) for rule in ranking.rules}
            count = sum(selections[name].count for name, rule in self.rules.items() if id(rule) in ranked_ids)
            if count != ranking.num_edges:
                raise WiringError(f"{count} edges are in use in all layers, must be {ranking.num_edges}")

    def summary(self) -> WiringSummary:
        """Potential edges, edges in use and density of each layer, and which layers are dense. For networks
        that describe their structure (see wirings.structure) also the effective edges.
        """
        selections, effective = self.selections(), self._effective()
        layers = tuple(
            LayerSummary(
                name,
                rule_name(type(rule)),
                rule.weight.numel(),
                selections[name].count,
                effective.get(id(rule)),
            )
            for name, rule in self.rules.items()
        )
        return WiringSummary(tuple(layers), self._dense)

    def _effective(self) -> dict[int, int]:
        """Numbers of effective edges by rule."""
        pairs = zip(stages(self._model), liveness(self._model), strict=True)
        counts = {id(stage.rule): int(live.edges.sum()) for stage, live in pairs}
        edges = effective_edges(self._model)
        if not counts and edges is not None and len(self.rules) == 1:
            counts = {id(rule): int(edges.sum()) for rule in self.rules.values()}
        return counts


def wire(
    model: nn.Module,
    rule: str | type[EdgeRule] = "dnw",
    density: float = 0.1,
    budget: str | Mapping[str, float] | Budget = "uniform",
    include: str | Iterable[str] | None = None,
    exclude: str | Iterable[str] | None = None,
    schedule: str | DensitySchedule | None = None,
    **options: Any,
) -> Wiring:
    """Make layers of a network use a fraction of their weights, selected by a rule. The network is changed in
    place: convolutions, transposed convolutions and linear layers multiply with the weights in use, and its
    parameters keep their names, so that checkpoints of the unwired network load.

    A layer's attribute `weight` is its parameter, with the weights that are not in use. Exceptions are layers
    that read it in a forward pass of their own (transposed convolutions, subclasses) or whose parent does
    (attention): there it returns the weights in use, and `_parameters["weight"]` is the parameter.

    Args:
        model: any network. Wire it before `torch.compile` and DistributedDataParallel.
        rule: a name of `wirings.rules.RULES`, or a subclass of EdgeRule.
        density: fraction of all weights of the wired layers that is in use, 0..1.
        budget: number of edges of each layer: `uniform`, `erk`, `global` (one ranking of all layers in each
            selection), a mapping of patterns to densities, or a function of shapes and density; see
            `wirings.budgets`.
        include: patterns of names of layers, such as "layer3.*"; None: all that can be wired.
        exclude: patterns of names of layers that stay dense.
        schedule: number of edges in use during the training, as a name of
            `wirings.densities.DENSITY_SCHEDULES` or a DensitySchedule, such as `Cubic(end=0.8)`; None: that
            of the rule's publication, else always that of the budget.
        options: further arguments of the rule.

    Returns:
        The wiring.

    Raises:
        WiringError: a name, pattern, option or number is wrong, a layer cannot be wired, or weights are tied.
            The network is unchanged then.
    """
    layers = _selected_layers(model, include, exclude)
    _refuse_tied_weights(model, layers)
    shapes = {_join(name, "weight"): tuple(weight_of(layer).shape) for name, layer in layers.items()}
    counts = count_edges(shapes, density, budget)
    if isinstance(schedule, str):
        schedule = find_density_schedule(schedule)
    rules = {
        name: build_rule(
            rule,
            potential_edges_of(_join(name, "weight"), layer),
            counts[_join(name, "weight")],
            schedule,
            **options,
        )
        for name, layer in layers.items()
    }
    if budget == GLOBAL:
        rank_together(rules)
    for name, layer in layers.items():
        wire_layer(layer, rules[name], model.get_submodule(name.rpartition(".")[0]))
    if accept_unwired_checkpoint not in model._load_state_dict_post_hooks.values():
        model.register_load_state_dict_post_hook(accept_unwired_checkpoint)  # type: ignore[no-untyped-call]
    return Wiring(model)


def unwire(model: _Network) -> _Network:
    """Make wired layers plain layers again, with zeros for the weights that are not in use in evaluation.

    Args:
        model: changed in place.

    Returns:
        The same network.

    Raises:
        WiringError: no layer is wired.
    """
    layers = [module for module in model.modules() if isinstance(module, WiredLayer)]
    if not layers:
        raise WiringError(f"{type(model).__name__} has no wired layers; there is nothing to unwire")
    values = []
    for layer in layers:  # all are selected before the first weight changes: layers may be ranked together
        assert isinstance(layer, nn.Module)
        values.append(weights_in_evaluation(layer))
    for layer, value in zip(layers, values, strict=True):
        unwire_layer(layer, value)
    return model


def _selected_layers(
    model: nn.Module, include: str | Iterable[str] | None, exclude: str | Iterable[str] | None
) -> dict[str, nn.Module]:
    """The layers to wire, by name.

    Raises:
        WiringError: a pattern matches no layer, a layer that it matches cannot be wired, or no layer is left.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    if isinstance(model, LAYER_TYPES):
        raise WiringError(f"the network is a single {type(model).__name__}; put it into an nn.Sequential")
    included = _patterns(include)
    if included is None:
        selected = {name: module for name, module in modules.items() if _can_be_wired(module)}
    else:
        selected = {}
        for pattern in included:
            matching = _matching(pattern, modules, "include")
            # A pattern may also match blocks and norms; a name must be that of a layer.
            layers = {name: modules[name] for name in matching if isinstance(modules[name], LAYER_TYPES)}
            selected |= layers or {name: modules[name] for name in matching[:1]}
        selected = {name: module for name, module in modules.items() if name in selected}
    for pattern in _patterns(exclude) or ():
        matching = _matching(pattern, modules, "exclude")
        if not any(name in selected for name in matching):
            raise WiringError(f"exclude: {pattern} matches no layer that would be wired")
        selected = {name: module for name, module in selected.items() if name not in matching}
    if not selected:
        raise WiringError(f"no layer of {type(model).__name__} is to be wired; it has none that can be")
    for name, module in selected.items():
        check_layer(name, module)
    return selected


def _can_be_wired(module: nn.Module) -> bool:
    return isinstance(module, LAYER_TYPES) and module._parameters.get("weight") is not None


def _patterns(patterns: str | Iterable[str] | None) -> list[str] | None:
    return [patterns] if isinstance(patterns, str) else None if patterns is None else list(patterns)


def _matching(pattern: str, modules: Mapping[str, nn.Module], argument: str) -> list[str]:
    matching = [name for name in modules if fnmatchcase(name, pattern)]
    if not matching:
        hint = did_you_mean(pattern, modules)
        raise WiringError(f"{argument}: {pattern} matches no module of the network{hint}")
    return matching


def _refuse_tied_weights(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Refuse parameters of two modules: the rule of one would select in the weight of the other."""
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                names.setdefault(id(parameter), []).append(_join(name, key))
    for name, layer in layers.items():
        same = names[id(weight_of(layer))]
        if len(same) > 1:
            raise WiringError(
                f"{' and '.join(same)} are the same parameter; exclude {name}, or give each its own copy"
            )


def count_edges(
    shapes: Mapping[str, Sequence[int]], density: float, budget: str | Mapping[str, float] | Budget
) -> dict[str, int]:
    """Number of edges of each layer by a budget of `wire`; with `global`, at the start.

    Args:
        shapes: of the weights, by name.
        density: fraction of all entries that is in use, 0..1.

    Raises:
        WiringError: there is no such budget, its number of edges for a layer is missing or out of range, or
            the density is out of range.
    """
    total_edges(shapes, density)  # refuses a density out of range
    if isinstance(budget, str):
        names = [*BUDGETS, GLOBAL]
        if budget not in names:
            hint = did_you_mean(budget, names)
            raise WiringError(
                f"budget must be one of {', '.join(names)}, a mapping or a function, got {budget}{hint}"
            )
        budget = BUDGETS["uniform" if budget == GLOBAL else budget]
    elif isinstance(budget, Mapping):
        budget = by_pattern(budget)
    return check_counts(shapes, budget(shapes, density))


def rank_together(rules: Mapping[str, EdgeRule]) -> None:
    """Make rules select the strongest edges of all layers together: see GlobalRanking.

    Args:
        rules: by name.

    Raises:
        WiringError: the weights of a rule cannot be ranked with those of others.
    """
    ranked = [rule for rule in rules.values() if isinstance(rule, RankedEdges) and rule.ranks_all_layers]
    if len(ranked) < len(rules):
        name = next(rule_name(type(rule)) for rule in rules.values() if rule not in ranked)
        raise WiringError(
            f"budget global ranks the weights of all layers, and {name} does not; choose uniform or erk"
        )
    ranking = GlobalRanking(ranked)
    for rule in ranked:
        rule.ranking = ranking


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key
