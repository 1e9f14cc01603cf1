"""Cost of an experiment's network: logged, and as numbers for the results."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from genutil.config import Config
from wirings.history import EdgeHistory
from wirings.profiling import Profile, as_table, profile
from wirings.structure import image_size
from wirings.wiring import Wiring

_log = logging.getLogger(__name__)


def count_new_edges(model: nn.Module, masks_before: Mapping[str, Tensor]) -> dict[str, int]:
    """Number of edges in use that are not in `masks_before`, by the names of the layers in the profile."""
    now = Wiring(model).adjacency()
    return {
        name.removesuffix(".weight"): int((now[name] & ~mask).sum()) for name, mask in masks_before.items()
    }


def profiled(config: Config, model: nn.Module, new_edges: Mapping[str, int] | None = None) -> Profile | None:
    """Cost of the network, logged in an evaluation, and in a training unless `skip_profiling` is set; None
    if it cannot be counted.

    `new_edges` is another column of the table: edges of each layer that were not in use before.
    """
    try:
        cost = profile(model, image_size(model) or config.image_size, config.in_channels)
    except ValueError as error:
        _log.warning("%s", error)
        return None
    if config.evaluate or not config.skip_profiling:
        _log.info("%s", as_table(cost, new_edges))
    return cost


def training_cost(history: EdgeHistory, cost: Profile | None, images: int) -> dict[str, Any]:
    """Multiply-accumulates of a training for the results; empty if they are not known.

    Args:
        history: of the whole training.
        cost: of the network.
        images: number of images of the training, each as often as it was used.
    """
    macs = None if cost is None else history.training_macs(cost.per_layer)
    if macs is None:
        return {}
    return {
        "training_macs": round(macs.total * images),
        "training_macs_per_image": {name: round(count) for name, count in dataclasses.asdict(macs).items()},
    }


def cost_numbers(cost: Profile | None, new_edges: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Cost for the results, in total and by layer; `new_edges` as in `profiled`."""
    if cost is None:
        return {}
    counts = {
        "edges": cost.edges,
        "effective_edges": cost.effective_edges,
        "live_nodes": cost.live_nodes,
        "params": cost.params,
        "macs": cost.macs,
    }
    layers = [dataclasses.asdict(layer) for layer in cost.per_layer]
    if new_edges is not None:
        layers = [{**layer, "new_edges": new_edges.get(layer["name"])} for layer in layers]
    return {**{name: count for name, count in counts.items() if count is not None}, "layers": layers}
