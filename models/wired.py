"""Wired networks of other libraries: any classifier of torchvision or timm with any edge rule.

model: models.wired:torchvision_model
model_args: {name: resnet18}
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torchvision
from torch import nn

from genutil.exceptions import ConfigError
from wirings.names import did_you_mean
from wirings.wiring import Wiring

Wire = Callable[..., Wiring]
"""`wire(module, include, exclude, default_budget)`: wires layers with the experiment's rule and budget."""


def torchvision_model(
    name: str,
    in_channels: int,
    output_size: int,
    image_size: int,
    wire: Wire,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
) -> nn.Module:
    """A wired classifier of torchvision without trained weights.

    Args:
        name: of `torchvision.models.get_model`, such as resnet18.
        in_channels: of the images; if it is not 3, the first convolution is replaced.
        output_size: classes.
        image_size: height and width of the images, in pixels.
        wire: wires the network.
        include, exclude: patterns of names of layers; see `wirings.wire`.

    Raises:
        ConfigError: there is no such network, or its first convolution cannot be replaced.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise ConfigError(f"torchvision has no classifier {name}{did_you_mean(name, names)}")
    model = torchvision.models.get_model(name, weights=None, num_classes=output_size)
    if in_channels != 3:
        _replace_first_convolution(model, name, in_channels)
    return _wired(model, image_size, wire, include, exclude)


def timm_model(
    name: str,
    in_channels: int,
    output_size: int,
    image_size: int,
    wire: Wire,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
    timm_args: dict[str, Any] | None = None,
) -> nn.Module:
    """A wired classifier of timm without trained weights.

    Args:
        name: of `timm.create_model`.
        in_channels, output_size, image_size, wire, include, exclude: see torchvision_model.
        timm_args: further arguments of `timm.create_model`.

    Raises:
        ConfigError: timm is not installed, or has no such network.
    """
    try:
        timm: Any = importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise ConfigError("models.wired:timm_model needs timm; run pip install timm") from error
    if not timm.is_model(name):
        raise ConfigError(f"timm has no network {name}{did_you_mean(name, timm.list_models())}")
    model: nn.Module = timm.create_model(
        name, num_classes=output_size, in_chans=in_channels, **(timm_args or {})
    )
    return _wired(model, image_size, wire, include, exclude)


def _wired(
    model: nn.Module, image_size: int, wire: Wire, include: list[str] | None, exclude: list[str] | None
) -> nn.Module:
    model.image_size = image_size  # type: ignore[assignment]
    wire(model, include=include, exclude=exclude)
    return model


def _replace_first_convolution(model: nn.Module, name: str, in_channels: int) -> None:
    """Replace the first convolution, since torchvision's networks take 3 channels."""
    convolutions = ((key, layer) for key, layer in model.named_modules() if isinstance(layer, nn.Conv2d))
    key, first = next(convolutions, ("", None))
    if first is None or first.in_channels != 3 or first.groups != 1:
        raise ConfigError(f"in_channels: {name} takes images of 3 channels only")
    parent, _, child = key.rpartition(".")
    layer = nn.Conv2d(
        in_channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        first.dilation,  # type: ignore[arg-type]
        bias=first.bias is not None,
        padding_mode=first.padding_mode,
    )
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    setattr(model.get_submodule(parent), child, layer)
