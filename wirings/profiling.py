"""Parameters and multiply-accumulates of a network, counted for the edges in use."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from wirings.counting import count_macs
from wirings.errors import WiringError, first_line
from wirings.images import black_image
from wirings.images import in_channels as own_in_channels
from wirings.layers import WiredLayer
from wirings.markdown import markdown_table
from wirings.structure import LayerComplexity, complexity_method, wired_layers
from wirings.structure import image_size as own_image_size


@dataclass(frozen=True)
class Profile:
    """Cost of a network.

    Attributes:
        params: weights in use.
        macs: multiply-accumulates for one image.
        per_layer: cost of each layer.
    """

    params: int
    macs: int
    per_layer: tuple[LayerComplexity, ...]

    @property
    def edges(self) -> int:
        """Edges in use, over all wired layers."""
        return sum(layer.edges for layer in self.per_layer)

    @property
    def effective_edges(self) -> int | None:
        """Edges in use on a path from image to logits, over all wired layers; None: not known."""
        return _sum_of_known(layer.effective for layer in self.per_layer)

    @property
    def live_nodes(self) -> int | None:
        """Source nodes with an effective edge, over all wired layers; None: not known."""
        return _sum_of_known(layer.live_nodes for layer in self.per_layer)


def _sum_of_known(counts: Iterable[int | None]) -> int | None:
    all_counts = list(counts)
    known = [count for count in all_counts if count is not None]
    return sum(known) if len(known) == len(all_counts) else None


def profile(
    model: nn.Module, image_size: int | tuple[int, int] | None = None, in_channels: int | None = None
) -> Profile:
    """Count a network's weights in use and its MACs for one image.

    If the network defines `complexity()`, that is the result. Otherwise the convolutions and matrix products
    of one black image are counted (see count_macs), each in the row of the layer that computes it, and the
    network's `wired_layers()` are added. If a rule selects weights, those in use are counted. A parameter
    shared by several layers counts once.

    Args:
        model: the network.
        image_size: height and width of the image, in pixels, as a pair if they differ; by default the model's
            own `image_size`.
        in_channels: channels of the image; by default those of the first 2-D convolution, or 3.

    Raises:
        WiringError: the size is not known, the model only runs at its own size, or it does not run on a black
            image of this size.
    """
    own_size, own_count = own_image_size(model), complexity_method(model)
    if isinstance(image_size, tuple) and image_size[0] == image_size[1]:
        image_size = image_size[0]
    any_size = "image_size" in inspect.signature(own_count).parameters
    name = type(model).__name__
    if isinstance(image_size, tuple) and any_size and own_count() is not None:
        raise WiringError(f"{name} counts square images only, not {image_size[0]} × {image_size[1]} pixels")
    layers = own_count(image_size) if any_size else own_count()
    if layers is not None:
        if not any_size and image_size not in (None, own_size):
            raise WiringError(f"{name} runs at {own_size} pixels only, not at {image_size}")
    else:
        size = image_size or own_size
        if size is None:
            raise WiringError(f"{name} has no image_size; give one to profile()")
        sizes = size if isinstance(size, tuple) else (size, size)
        layers = _count_any(model, sizes, in_channels)
    return Profile(sum(layer.params for layer in layers), sum(layer.macs for layer in layers), tuple(layers))


def as_table(cost: Profile, new_edges: Mapping[str, int] | None = None) -> str:
    """Cost and edges of each layer, as a Markdown table.

    Args:
        cost: the profile.
        new_edges: edges in use that were not in use before, by the name of the layer: another column.
    """
    header = ["layer", "params", "MACs", "potential edges", "in use", "effective", "live nodes"]
    if new_edges is not None:
        header.append("newly in use")
    rows = []
    for layer in cost.per_layer:
        wiring: tuple[int | None, ...] = (layer.potential, layer.edges, layer.effective, layer.live_nodes)
        if new_edges is not None:
            wiring = (*wiring, new_edges.get(layer.name))
        counts = map(_cell, wiring) if layer.potential else [""] * len(wiring)
        rows.append((layer.name, f"{layer.params:,}", f"{layer.macs:,}", *counts))
    potential = sum(layer.potential for layer in cost.per_layer)
    totals = [cost.params, cost.macs, potential, cost.edges, cost.effective_edges, cost.live_nodes]
    if new_edges is not None:
        totals.append(sum(new_edges.values()))
    return markdown_table(header, [*rows, ("total", *map(_cell, totals))])


def _cell(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def _count_any(
    model: nn.Module, image_size: tuple[int, int], in_channels: int | None
) -> list[LayerComplexity]:
    """A row for each module with its own weights or with products, and for each graph."""
    graphs = wired_layers(model)
    graph_rules = {id(graph.rule) for graph in graphs}
    macs = _run_and_count(model, image_size, in_channels)
    params: Counter[str] = Counter()
    rows: dict[str, str] = {}
    wired: dict[str, WiredLayer] = {}
    counted: set[int] = set()
    for name, module in model.named_modules():
        rows[name] = row = _row(model, name, is_rule=name.rpartition(".")[0] in wired)
        is_graph = id(module) in graph_rules
        weight: Tensor | None = None
        if isinstance(module, WiredLayer):
            wired[name] = module
            weight = module.wiring.weight if id(module.wiring) in graph_rules else None
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in counted and not is_graph and parameter is not weight:
                params[row] += _num_in_use(module, parameter)
            counted.add(id(parameter))
    by_row = {rows[name]: layer for name, layer in wired.items() if id(layer.wiring) not in graph_rules}
    per_row: Counter[str] = Counter()
    for name, module in model.named_modules():
        per_row[rows[name]] += 0 if id(module) in graph_rules else macs[name]
    layers = [
        _layer_cost(row, params[row], per_row[row], by_row.get(row))
        for row in dict.fromkeys(rows.values())
        if params[row] or per_row[row]
    ]
    return layers + [graph.complexity() for graph in graphs]


def _layer_cost(name: str, params: int, macs: int, layer: WiredLayer | None) -> LayerComplexity:
    """A row of the profile; `layer` is the wired layer, if any, whose effective edges are not known."""
    if layer is None:
        return LayerComplexity(name, params, macs)
    in_use = layer.wiring.in_use()
    edges = int(in_use.sum())
    return LayerComplexity(name, params, macs, in_use.numel(), edges, None, None, macs // max(edges, 1))


def _row(model: nn.Module, name: str, is_rule: bool) -> str:
    """Name of the row in which a module is counted: that of its layer for rules and parametrizations.

    Args:
        is_rule: the module is the rule of a wired layer.
    """
    words = name.split(".")[: -1 if is_rule else None]
    if "parametrizations" in words:
        words = words[: words.index("parametrizations")]
    return ".".join(word for word in words if word != "_orig_mod") or type(model).__name__


def _run_and_count(model: nn.Module, image_size: tuple[int, int], in_channels: int | None) -> dict[str, int]:
    shape = (in_channels or own_in_channels(model) or 3, *image_size)
    try:
        return count_macs(model, black_image(model, shape))
    except Exception as error:  # a network of the user's may raise anything
        raise WiringError(
            f"the cost of {type(model).__name__} cannot be counted: "
            f"it does not run on an image of {'×'.join(map(str, shape))} ({first_line(error)}); "
            "define its attribute image_size, or a method complexity()"
        ) from error


def _num_in_use(module: nn.Module, parameter: nn.Parameter) -> int:
    """Number of a parameter's weights in use, by the module's or its rule's `in_use()`, if it has one."""
    rule = module.wiring if isinstance(module, WiredLayer) else module
    in_use: Callable[[], Tensor] | None = getattr(rule, "in_use", None)
    if in_use is not None and parameter is getattr(rule, "weight", None):
        return int(in_use().sum())
    return parameter.numel()
