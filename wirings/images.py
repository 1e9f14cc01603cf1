"""Input images of a network: their shape, if it is known, and black ones for trial runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from wirings.structure import image_size


def in_channels(model: nn.Module) -> int | None:
    """Channels of the images: those of the first 2-D convolution; None: not known."""
    convolutions = (layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    return next((layer.in_channels for layer in convolutions if layer.in_channels), None)  # 0: lazy


def image_shape(model: nn.Module) -> tuple[int, int, int] | None:
    """(channels, height, width) of the images; None: not known."""
    channels, size = in_channels(model), image_size(model)
    return None if channels is None or size is None else (channels, size, size)


def black_image(model: nn.Module, shape: Sequence[int]) -> Tensor:
    """(1, channels, height, width), on the network's device and in the type of its parameters.

    Args:
        model: the network.
        shape: of one image.
    """
    numbers = (value for value in model.parameters() if value.is_floating_point() and not is_lazy(value))
    return torch.zeros(1, *shape).to(next(numbers, torch.empty(0)))
