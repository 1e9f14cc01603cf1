"""Names of weights in files of other programs, matched with the names of a network.

Wrappers add prefixes to all names (`module.` of DataParallel, `_orig_mod.` of torch.compile, `model.` or
another attribute's name of Lightning), averaging and profiling programs add counters, and old versions of
torch have no batch counters of batch norms.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_COMPILED = "_orig_mod"
_BATCHES = "num_batches_tracked"
_LEFTOVERS = ("total_ops", "total_params", "n_averaged")
"""Counters of thop and of torch.optim.swa_utils.AveragedModel."""


@dataclass(frozen=True)
class MatchedWeights:
    """Weights under the names of a network.

    Attributes:
        weights: by name, with names that are not in the network.
        prefix: removed from all names, such as `module.`.
        changes: descriptions of the changes; empty if the names were those of the network.
    """

    weights: dict[str, Any]
    prefix: str
    changes: tuple[str, ...]


def match_names(weights: Mapping[str, Any], expected: Mapping[str, Tensor]) -> MatchedWeights:
    """Rename the weights of a file to the names of a network.

    A prefix is removed only if all names have it and more of them match the network without it, so that the
    network's own prefixes remain.

    Args:
        weights: of the file, by name.
        expected: the state dict of the network.
    """
    named = {str(name): value for name, value in weights.items()}
    counters = {name for name, value in named.items() if _is_leftover(name, value)}
    prefix, inner = _find_prefix([name for name in named if name not in counters], expected)
    renamed = {_short(name.removeprefix(prefix), inner): value for name, value in named.items()}
    ignored = {
        name: name.rpartition(".")[2]
        for name in (_short(name.removeprefix(prefix), inner) for name in counters)
        if name not in expected
    }
    matched = {name: value for name, value in renamed.items() if name not in ignored}
    changes = []
    if prefix:
        changes.append(f"removed the prefix '{prefix}' from all names")
    if inner:
        changes.append(f"removed '{_COMPILED}.' within names")
    if ignored:
        changes.append(f"ignored {', '.join(sorted(set(ignored.values())))}")
    batches = _missing_batches(matched, expected)
    if batches:
        matched |= {name: torch.zeros_like(expected[name], device="cpu") for name in batches}
        changes.append(f"{_BATCHES} missing, counters start at 0")
    return MatchedWeights(matched, prefix, tuple(changes))


def _is_leftover(name: str, value: Any) -> bool:
    return name.rpartition(".")[2] in _LEFTOVERS and isinstance(value, Tensor) and value.numel() == 1


def _find_prefix(names: Collection[str], expected: Mapping[str, Tensor]) -> tuple[str, bool]:
    """Shortest prefix without which most names match; whether that of torch.compile is also inside names."""
    first, *others = [name.split(".")[:-1] for name in names] or [[]]
    common = len(first)
    for words in others:
        common = min(common, len(words))
        while words[:common] != first[:common]:
            common -= 1
    prefixes = [".".join([*first[:length], ""]) for length in range(common + 1)]
    best = ("", False)
    max_matches = sum(name in expected for name in names)
    for inner in (False, True):
        for prefix in prefixes:
            short = {_short(name.removeprefix(prefix), inner) for name in names}
            matches = sum(name in expected for name in short)
            if matches > max_matches and len(short) == len(names):
                best, max_matches = (prefix, inner), matches
    return best


def _short(name: str, inner: bool) -> str:
    """The name; with `inner`, without the prefixes of torch.compile inside of it."""
    return ".".join(word for word in name.split(".") if word != _COMPILED) if inner else name


def _missing_batches(weights: Mapping[str, Any], expected: Mapping[str, Tensor]) -> list[str]:
    """The network's batch counters, if the file has running averages and none of the counters."""
    if any(name.rpartition(".")[2] == _BATCHES for name in weights):
        return []
    return [
        name
        for name in expected
        if name.rpartition(".")[2] == _BATCHES and name.removesuffix(_BATCHES) + "running_mean" in weights
    ]
