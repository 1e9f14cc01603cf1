"""Architectures and configurations by name: what a network consists of, and which weights stay."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from wirings.names import did_you_mean

ARCHITECTURES: Mapping[str, tuple[str, tuple[int, int, int, int]]] = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
    "resnet152": ("bottleneck", (3, 8, 36, 3)),
}
"""Kind of the blocks, and how many of them the four stages have. Source: He et al., arXiv 1512.03385."""
DENSE = ("classic", "fanin", "dense")
FAMILIES = ("allsparse", "ignorefirst", "tdsparse")
CHOICES = "classic | fanin | dense | allsparseK | ignorefirstK | tdsparseK, K = 1..99 per cent kept"


@dataclass(frozen=True)
class Configuration:
    """How the layers of a ResNet choose their weights.

    Attributes:
        prune_rate: part of each layer's weights that is left out, 0..1.
        first_prune_rate: the same for the first convolution.
        initialisation: of all convolutions: normal, with the variance 2 / fan_in or 2 / fan_out.
        dropout: in training, weak weights are dropped at random, each with probability `prune_rate` (targeted
            dropout); else they are left out and get a straight-through gradient.
    """

    prune_rate: float = 0.0
    first_prune_rate: float = 0.0
    initialisation: Literal["fan_in", "fan_out"] = "fan_in"
    dropout: bool = False


def find_configuration(name: str) -> Configuration:
    """The configuration of this name.

    Raises:
        ValueError: there is none.
    """
    if name in DENSE:
        return Configuration(initialisation="fan_out" if name == "classic" else "fan_in")
    match = re.fullmatch(rf"({'|'.join(FAMILIES)})([1-9]\d?)", name)
    if not match:
        tens = [f"{family}{kept}" for family in FAMILIES for kept in range(10, 100, 10)]
        raise ValueError(f"must be {CHOICES}, got {name}{did_you_mean(name, [*DENSE, *tens])}")
    prune_rate = (100 - int(match[2])) / 100
    return Configuration(
        prune_rate=prune_rate,
        first_prune_rate=0.0 if match[1] == "ignorefirst" else prune_rate,
        dropout=match[1] == "tdsparse",
    )
