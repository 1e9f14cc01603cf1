"""Budgets: functions from the layers' shapes and a density to the number of edges of each layer.

A budget takes the shapes of the weights by their names, and a density, and returns exact integers. Those of
`uniform` and `erk` sum to `total_edges(shapes, density)`, independent of the rounding of single layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

from wirings.errors import WiringError

Shapes = Mapping[str, Sequence[int]]
"""Shapes of the weights, (targets, sources, …), by name."""
Budget = Callable[[Shapes, float], dict[str, int]]


def total_edges(shapes: Shapes, density: float) -> int:
    """Edges of all layers together: numel − int((1 − density) · numel).

    Raises:
        WiringError: `density` is not within 0..1.
    """
    if not 0 <= density <= 1:
        raise WiringError(f"density must be within 0..1, got {density}")
    numel = sum(map(math.prod, shapes.values()))
    return numel - int((1 - density) * numel)


def uniform(shapes: Shapes, density: float) -> dict[str, int]:
    """The same density in all layers.

    Args:
        shapes: of the weights, by name.
        density: fraction of all entries that is in use, 0..1.

    Raises:
        WiringError: `density` is out of range.
    """
    return _apportion(shapes, dict.fromkeys(shapes, 1.0), total_edges(shapes, density))


def erk(shapes: Shapes, density: float) -> dict[str, int]:
    """Erdős–Rényi kernel: a layer's density is proportional to the sum of its sizes over their product.

    A layer that would have more edges than entries has all of them; the rest is divided among the others.
    Source: Evci et al., "Rigging the Lottery: Making All Tickets Winners", ICML 2020, after Mocanu et al.,
    "Scalable training of artificial neural networks with adaptive sparse connectivity", 2018.

    Raises:
        WiringError: `density` is out of range.
    """
    weights = {name: sum(shape) / math.prod(shape) for name, shape in shapes.items()}
    return _apportion(shapes, weights, total_edges(shapes, density))


def by_pattern(densities: Mapping[str, float]) -> Budget:
    """Densities by patterns of names, such as {"layer1.*": 0.5, "*": 0.1}; the first match counts.

    The argument `density` of the budget is not used.

    Raises:
        WiringError: a density is out of range; and by the budget: a layer that no pattern matches, or a
            pattern that matches no layer.
    """
    for pattern, density in densities.items():
        if not 0 <= density <= 1:
            raise WiringError(f"density of {pattern} must be within 0..1, got {density}")

    def budget(shapes: Shapes, _density: float) -> dict[str, int]:
        pattern_of = {name: _first_match(densities, name) for name in shapes}
        for name, pattern in pattern_of.items():
            if pattern is None:
                raise WiringError(f"no density for {name}: none of {', '.join(densities)} matches")
        unused = [pattern for pattern in densities if pattern not in pattern_of.values()]
        if unused:
            raise WiringError(
                f"density of {', '.join(unused)} matches no layer; there are {', '.join(shapes)}"
            )
        return {
            name: total_edges({name: shapes[name]}, densities[pattern])
            for name, pattern in pattern_of.items()
            if pattern is not None
        }

    return budget


def mobilenet_width(shapes: Shapes, width: float) -> dict[str, int]:
    """The published budget: each stage of a MobileNet graph has as many edges as the 1×1 weights of the stage
    in a dense MobileNet of this width; another layer (a wired classifier) has this fraction of its entries.

    Args:
        shapes: of the weights. That of a stage is (depth · outputs, inputs + (depth − 1) · outputs, 1, 1)
            with inputs = outputs / 2, so it has more rows than columns; a classifier has fewer.
        width: width multiplier, 0..1; in experiments 1 − prune_rate.

    Raises:
        WiringError: the width is out of range, or a weight has not the shape of a stage.
    """
    total_edges(shapes, width)  # refuses a width out of range
    counts = {}
    for name, shape in shapes.items():
        entries = math.prod(shape)
        rate = 1 - width
        if shape[0] > shape[1]:
            rate = 1 - mobilenet_stage(*_sizes_of_stage(name, shape), 1 - rate) / entries
        counts[name] = entries - int(rate * entries)
    return counts


def _sizes_of_stage(name: str, shape: Sequence[int]) -> tuple[int, int, int]:
    """(inputs, outputs, depth)."""
    rows, columns = shape[:2]
    outputs = 2 * (rows - columns)
    if rows % outputs or math.prod(shape[2:]) != 1:
        raise WiringError(
            f"budget mobilenet_width: {name}, {tuple(shape)}, is not a stage of a MobileNet graph"
        )
    return outputs // 2, outputs, rows // outputs


def mobilenet_stage(inputs: int, outputs: int, depth: int, width: float) -> float:
    """Edges, not rounded, of a stage of a MobileNet graph: number of the 1×1 weights of the stage in a dense
    MobileNet of this width, which is 1 − prune_rate.

    Args:
        inputs, outputs: numbers of nodes that enter and leave the stage.
        depth: number of 1×1 convolutions of the dense stage.
        width: width multiplier.
    """
    return width**2 * (inputs * outputs + (depth - 1) * outputs**2)


def check_counts(shapes: Shapes, counts: Mapping[str, int]) -> dict[str, int]:
    """The counts of a budget, after checking names and ranges.

    Raises:
        WiringError: a layer is missing, unknown, or has more edges than entries.
    """
    for name in counts:
        if name not in shapes:
            raise WiringError(f"the budget has {name}, which is not a layer; there are {', '.join(shapes)}")
    for name, shape in shapes.items():
        if name not in counts:
            raise WiringError(f"the budget has no number of edges for {name}")
        count, entries = counts[name], math.prod(shape)
        if count != int(count) or not 0 <= count <= entries:
            raise WiringError(f"the budget has {count} edges for {name}, which can have 0 to {entries}")
    return {name: int(counts[name]) for name in shapes}


GLOBAL = "global"
"""The budget of one ranking over all layers, which is made in each selection: see wirings.ranking."""
BUDGETS: dict[str, Budget] = {"uniform": uniform, "erk": erk, "mobilenet_width": mobilenet_width}


def _first_match(patterns: Mapping[str, float], name: str) -> str | None:
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)


def _apportion(shapes: Shapes, weights: Mapping[str, float], total: int) -> dict[str, int]:
    """Divide `total` edges in proportion to entries · weight, no layer above its entries.

    Method of largest remainders: each quota is rounded down, and the layers with the largest remainders get
    one more; of equal remainders the first layer.
    """
    entries = {name: math.prod(shape) for name, shape in shapes.items()}
    full: set[str] = set()
    while True:
        rest = total - sum(entries[name] for name in full)
        others = [name for name in shapes if name not in full]
        scale = rest / max(sum(entries[name] * weights[name] for name in others), 1e-300)
        quotas = {name: entries[name] * weights[name] * scale for name in others}
        over = {name for name in others if quotas[name] > entries[name]}
        if not over:
            break
        full |= over
    counts = {name: entries[name] if name in full else int(quotas[name]) for name in shapes}
    missing = total - sum(counts.values())
    by_remainder = sorted(others, key=lambda name: counts[name] - quotas[name])
    for name in [name for name in by_remainder if counts[name] < entries[name]][:missing]:
        counts[name] += 1
    return counts
