"""Wirings of neural networks: which weights are in use, chosen by a rule while the network trains.

    import wirings

    wiring = wirings.wire(model, rule="dnw", density=0.1)     # any network of torch
    ...                                                       # train it; before each optimizer.step():
    wiring.after_backward(optimizer, step, total_steps)
    print(wiring.summary())
    small = wirings.compact(model, example=images)            # without dead channels, for evaluation
    fast = wirings.compile(model, images)                     # by the sparse engine, on the CPU
    plain = wirings.unwire(model)                             # zeros in place of the unused weights

Names are imported when they are first used, so that `import wirings` alone loads neither torch nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from wirings.errors import MissingPackageError, NotFiniteError, WiringError

if TYPE_CHECKING:
    from wirings.channel_report import ChannelReport
    from wirings.channels import remove_dead_channels
    from wirings.compacting import compact, engines_of
    from wirings.compiled_network import CompiledNetwork, compile, load_compiled
    from wirings.exporting import export
    from wirings.history import EdgeHistory
    from wirings.profiling import Profile, profile
    from wirings.rules import find_rule
    from wirings.rules.base import EdgeRule, EdgeSpace, MaskedEdges, PotentialEdges, RankedEdges, Step
    from wirings.selection import EdgeSelection, straight_through
    from wirings.structure import WiredNetwork
    from wirings.topk import Selector, choose_top_edges, top_mask, top_mask_by_row
    from wirings.wiring import Wiring, unwire, wire
    from wirings.wiring_summary import WiringSummary

__all__ = [
    "ChannelReport",
    "CompiledNetwork",
    "EdgeHistory",
    "EdgeRule",
    "EdgeSelection",
    "EdgeSpace",
    "MaskedEdges",
    "MissingPackageError",
    "NotFiniteError",
    "PotentialEdges",
    "Profile",
    "RankedEdges",
    "Selector",
    "Step",
    "WiredNetwork",
    "Wiring",
    "WiringError",
    "WiringSummary",
    "choose_top_edges",
    "compact",
    "compile",
    "engines_of",
    "export",
    "find_rule",
    "load_compiled",
    "profile",
    "remove_dead_channels",
    "straight_through",
    "top_mask",
    "top_mask_by_row",
    "unwire",
    "wire",
]

_PLACES = {
    "ChannelReport": "wirings.channel_report",
    "remove_dead_channels": "wirings.channels",
    "EdgeHistory": "wirings.history",
    "EdgeRule": "wirings.rules.base",
    "EdgeSpace": "wirings.rules.base",
    "PotentialEdges": "wirings.rules.base",
    "MaskedEdges": "wirings.rules.base",
    "RankedEdges": "wirings.rules.base",
    "Step": "wirings.rules.base",
    "EdgeSelection": "wirings.selection",
    "straight_through": "wirings.selection",
    "WiredNetwork": "wirings.structure",
    "compact": "wirings.compacting",
    "CompiledNetwork": "wirings.compiled_network",
    "compile": "wirings.compiled_network",
    "load_compiled": "wirings.compiled_network",
    "engines_of": "wirings.compacting",
    "export": "wirings.exporting",
    "Profile": "wirings.profiling",
    "profile": "wirings.profiling",
    "find_rule": "wirings.rules",
    "Selector": "wirings.topk",
    "choose_top_edges": "wirings.topk",
    "top_mask": "wirings.topk",
    "top_mask_by_row": "wirings.topk",
    "Wiring": "wirings.wiring",
    "WiringSummary": "wirings.wiring_summary",
    "unwire": "wirings.wiring",
    "wire": "wirings.wiring",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
