"""Whether a network of the user's own gives logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genutil.errors import ConfigError
from genutil.seeding import preserve_rng_state


def check_logits(model: nn.Module, path: str, shape: tuple[int, int, int], num_classes: int) -> None:
    """Run two black images through a network in evaluation mode; its mode and all random numbers stay.

    A network that does not run on them is left to the first batch, whose images may be of another size.

    Args:
        model: the network, on its device.
        path: what the experiment's `model` names.
        shape: (channels, height, width) of an image.
        num_classes: how many logits an image has.

    Raises:
        ConfigError: the output is not a tensor (images, classes) of floating-point numbers.
    """
    device = next((tensor.device for tensor in [*model.parameters(), *model.buffers()]), None)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), preserve_rng_state():
            try:
                output = model(torch.zeros(2, *shape, device=device))
            except Exception:  # it is the user's code; the first batch shows whether it runs
                return
        _refuse_other_than(output, path, (2, num_classes))
    finally:
        for module, training in modes.items():
            module.training = training


def _refuse_other_than(output: Any, path: str, shape: tuple[int, int]) -> None:
    wanted = f"must return logits, a tensor of shape (images, output_size) = {shape}"
    if not isinstance(output, Tensor):
        raise ConfigError(f"model: {path} {wanted}, got {type(output).__name__}")
    if tuple(output.shape) != shape:
        raise ConfigError(f"model: {path} {wanted}, got {tuple(output.shape)}")
    if not output.is_floating_point():
        raise ConfigError(f"model: {path} {wanted} of floating-point numbers, got {output.dtype}")
