"""How many weights each layer uses: counted, layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from wirings.profiling import profile
from wirings.tables import markdown_table
from wirings.wiring import Wiring


@dataclass(frozen=True)
class LayerDensity:
    """Weights of one layer.

    Attributes:
        name: state-dict name of the layer.
        weights: all of them.
        kept: those in use in evaluation.
        macs: multiply-accumulates of the kept ones for one image.
        fresh: kept ones that were not kept before; None: not compared.
    """

    name: str
    weights: int
    kept: int
    macs: int
    fresh: int | None = None


def masks_in_use(network: nn.Module) -> dict[str, Tensor]:
    """The mask of every layer that selects its weights, by the layer's name."""
    return {name.removesuffix(".weight"): mask for name, mask in Wiring(network).adjacency().items()}


def selecting_layers(network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """(mask, weights) of every layer that selects its weights, as matrices with a row for each output."""
    wiring = Wiring(network)
    return [
        (mask.flatten(1), wiring.rules[name].weight.flatten(1)) for name, mask in wiring.adjacency().items()
    ]


def measure_density(network: nn.Module, image_size: int) -> list[LayerDensity]:
    """Count the weights in use of every convolution, the classifier included.

    Args:
        network: before it is compiled; one black image runs through it.
        image_size: of that image, in pixels.
    """
    masks = masks_in_use(network)
    macs = {layer.name: layer.macs for layer in profile(network, image_size).per_layer}
    found = []
    for name, layer in network.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        kept = int(masks[name].sum()) if name in masks else layer.weight.numel()
        found.append(LayerDensity(name, layer.weight.numel(), kept, macs[name]))
    return found


def compare(
    layers: Sequence[LayerDensity], before: Mapping[str, Tensor], now: Mapping[str, Tensor]
) -> list[LayerDensity]:
    """The same layers with the weights counted that are kept now; MACs change with them.

    Args:
        layers: as measured before.
        before, now: what masks_in_use gave then and gives now.
    """
    compared = []
    for layer in layers:
        kept, fresh = layer.kept, 0
        if layer.name in now:
            kept = int(now[layer.name].sum())
            fresh = int((now[layer.name] & ~before[layer.name]).sum())
        macs = layer.macs // layer.kept * kept if layer.kept else 0
        compared.append(dataclasses.replace(layer, kept=kept, macs=macs, fresh=fresh))
    return compared


def total(layers: Sequence[LayerDensity]) -> LayerDensity:
    """All layers together."""
    fresh = [layer.fresh for layer in layers if layer.fresh is not None]
    return LayerDensity(
        "total",
        sum(layer.weights for layer in layers),
        sum(layer.kept for layer in layers),
        sum(layer.macs for layer in layers),
        sum(fresh) if fresh else None,
    )


def density_table(layers: Sequence[LayerDensity]) -> str:
    """One row a layer and one for all, as Markdown."""
    header = ("layer", "weights", "kept", "density", "MACs")
    with_fresh = any(layer.fresh is not None for layer in layers)
    rows = []
    for layer in [*layers, total(layers)]:
        row = (
            layer.name,
            f"{layer.weights:,}",
            f"{layer.kept:,}",
            f"{100 * layer.kept / layer.weights:.2f} %",
        )
        rows.append((*row, f"{layer.macs:,}", *([f"{layer.fresh:,}"] if with_fresh else [])))
    return markdown_table((*header, *(["newly kept"] if with_fresh else [])), rows)
