"""Pruned networks: the weights other than zero are the edges in use."""

from __future__ import annotations

import glob
from collections import Counter

from torch import nn

from wirings.layers import LAYER_TYPES, WiredLayer, weight_of
from wirings.rules.base import EdgeRule
from wirings.selection import EdgeSelection, Gradient
from wirings.wiring import Wiring, wire


class NonZeroEdges(EdgeRule):
    """The weights other than zero are in use, independent of the budget."""

    gradient: Gradient = "used"

    def select(self) -> EdgeSelection:
        """The weights other than zero."""
        return EdgeSelection.from_mask(self.weight != 0)


def wire_nonzero(model: nn.Module) -> Wiring:
    """Wire the layers of a network that have weights of zero, with NonZeroEdges: its profile then counts the
    other weights, and its logits are unchanged.

    Layers with a shared or computed weight, and wired layers, are not changed.

    Args:
        model: changed in place.

    Returns:
        The wiring.
    """
    uses = Counter(id(parameter) for module in model.modules() for parameter in module._parameters.values())
    pruned = [
        glob.escape(name)
        for name, layer in model.named_modules()
        if name and _has_own_weight(layer, uses) and not weight_of(layer).all()
    ]
    return wire(model, NonZeroEdges, density=1.0, include=pruned) if pruned else Wiring(model)


def _has_own_weight(layer: nn.Module, uses: Counter[int]) -> bool:
    if not isinstance(layer, LAYER_TYPES) or isinstance(layer, WiredLayer):
        return False
    weight = layer._parameters.get("weight")
    return weight is not None and weight.is_floating_point() and uses[id(weight)] == 1
