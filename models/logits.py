"""Check that a network of the user's own returns logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genutil.exceptions import ConfigError
from genutil.seeding import preserve_rng_state


def check_logits(model: nn.Module, path: str, shape: tuple[int, int, int], num_classes: int) -> None:
    """Run two black images through a network in evaluation mode; its mode and the RNG state are preserved.

    If it fails on them, the first batch shows the error: its images may have another size.

    Args:
        model: the network, on its device.
        path: the experiment's `model`.
        shape: (channels, height, width) of an image.
        num_classes: number of logits of an image.

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
            except Exception:  # the user's code may raise anything
                return
        _check_output(output, path, (2, num_classes))
    finally:
        for module, training in modes.items():
            module.training = training


def _check_output(output: Any, path: str, shape: tuple[int, int]) -> None:
    expected = f"must return logits, a tensor of shape (images, output_size) = {shape}"
    if not isinstance(output, Tensor):
        raise ConfigError(f"model: {path} {expected}, got {type(output).__name__}")
    if tuple(output.shape) != shape:
        raise ConfigError(f"model: {path} {expected}, got {tuple(output.shape)}")
    if not output.is_floating_point():
        raise ConfigError(f"model: {path} {expected} of floating-point numbers, got {output.dtype}")
