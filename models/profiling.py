"""Parameters and multiply-accumulates of a network, counted from the edges that are in use."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genutil.tables import markdown_table
from models.graphs.complexity import LayerComplexity, wired_layers
from models.graphs.edges import EdgeRule


@dataclass(frozen=True)
class Profile:
    """What a network costs.

    Attributes:
        params: weights in use.
        macs: multiply-accumulates for one image.
        per_layer: the same, layer by layer.
    """

    params: int
    macs: int
    per_layer: tuple[LayerComplexity, ...]

    @property
    def edges(self) -> int:
        """Edges in use, over all wired layers."""
        return sum(layer.edges for layer in self.per_layer)

    @property
    def effective_edges(self) -> int:
        """Edges in use on a path from image to logits, over all wired layers."""
        return sum(layer.effective for layer in self.per_layer)

    @property
    def live_nodes(self) -> int:
        """Source nodes with an effective edge, over all wired layers."""
        return sum(layer.live_nodes for layer in self.per_layer)


def profile(model: nn.Module, image_size: int | None = None, in_channels: int | None = None) -> Profile:
    """Count a network's weights in use and its MACs for one image.

    A network that knows its own cost (`complexity()`) is asked. Of any other one the convolutions and linear
    layers are counted while one black image runs through it, and its `wired_layers()` are added.

    Args:
        model: the network.
        image_size: height and width of the image, in pixels; by default the model's own `image_size`.
        in_channels: channels of the image; by default those of the first convolution, or 3.

    Raises:
        ValueError: the size is not known, the model runs at its own size alone, or it does not run on a black
            image of this size.
    """
    own_size = getattr(model, "image_size", None)
    own_count: Callable[..., list[LayerComplexity]] | None = getattr(model, "complexity", None)
    if own_count is not None:
        any_size = "image_size" in inspect.signature(own_count).parameters
        if not any_size and image_size not in (None, own_size):
            raise ValueError(f"{type(model).__name__} runs at {own_size} pixels only, not at {image_size}")
        layers = own_count(image_size) if any_size else own_count()
    else:
        size = image_size or own_size
        if size is None:
            raise ValueError(f"{type(model).__name__} has no image_size; give one to profile()")
        layers = _count_dense(model, size, in_channels)
    return Profile(sum(layer.params for layer in layers), sum(layer.macs for layer in layers), tuple(layers))


def as_table(cost: Profile) -> str:
    """What each layer costs, and what became of its edges, as Markdown."""
    header = ("layer", "params", "MACs", "potential edges", "in use", "effective", "live nodes")
    rows = []
    for layer in cost.per_layer:
        wiring = (layer.potential, layer.edges, layer.effective, layer.live_nodes)
        shown = [f"{count:,}" for count in wiring] if layer.potential else [""] * len(wiring)
        rows.append((layer.name, f"{layer.params:,}", f"{layer.macs:,}", *shown))
    potential = sum(layer.potential for layer in cost.per_layer)
    totals = (cost.params, cost.macs, potential, cost.edges, cost.effective_edges, cost.live_nodes)
    return markdown_table(header, [*rows, ("total", *(f"{count:,}" for count in totals))])


def _count_dense(model: nn.Module, image_size: int, in_channels: int | None) -> list[LayerComplexity]:
    macs: dict[str, int] = {}
    names = {module: name for name, module in model.named_modules()}

    def count(module: nn.Module, _inputs: object, output: Tensor) -> None:
        pixels = output[0, 0].numel() if isinstance(module, nn.Conv2d) else 1
        macs[names[module]] = macs.get(names[module], 0) + _num_weights(module) * pixels

    dense = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    hooks = [module.register_forward_hook(count) for module in dense]
    first = next((module.in_channels for module in dense if isinstance(module, nn.Conv2d)), in_channels or 3)
    was_training = model.training
    try:
        with torch.no_grad():
            parameter = next(model.parameters())
            model.eval()(torch.zeros(1, first, image_size, image_size).to(parameter))
    except RuntimeError as error:
        size = f"{first}×{image_size}×{image_size}"
        raise ValueError(
            f"the cost of {type(model).__name__} is not counted: "
            f"it does not run on an image of {size} ({error}); "
            "give it an attribute image_size, or a method complexity()"
        ) from error
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    own = {
        name: _num_weights(module)
        + sum(p.numel() for key, p in module.named_parameters(recurse=False) if key != "weight")
        for name, module in model.named_modules()
        if not isinstance(module, EdgeRule)
    }
    layers = [LayerComplexity(name, params, macs.get(name, 0)) for name, params in own.items() if params]
    return layers + [layer.complexity() for layer in wired_layers(model)]


def _num_weights(module: nn.Module) -> int:
    """Weights in use: of a layer that selects them, those that it tells by `in_use()`."""
    weight, in_use = getattr(module, "weight", None), getattr(module, "in_use", None)
    if in_use is not None:
        return int(in_use().sum())
    return weight.numel() if isinstance(weight, nn.Parameter) else 0
