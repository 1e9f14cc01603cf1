"""Automatic mixed precision: 16-bit arithmetic where it is safe, with float32 weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_FIRST_SCALE = 2.0**16
"""Loss scale of fp16 in the first step; torch's default."""
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Precision of the forward pass, the backward pass and the optimizer step.

    fp16 has a small range, so its loss is scaled up before the backward pass, and a step whose gradients
    overflow is skipped.

    Args:
        amp: bf16 or fp16: 16 bits for products, convolutions and maps; None: the types of weights and images.
        device: of the network.
        loss_scale: fp16: a fixed scale; None: one that follows the gradients.
    """

    def __init__(self, amp: str | None, device: torch.device, loss_scale: float | None = None) -> None:
        self._type, self._device = _TYPES[amp] if amp else None, device
        self._fixed_scale = loss_scale
        first_scale = _FIRST_SCALE if loss_scale is None else loss_scale
        self._scaler = torch.amp.GradScaler(device.type, init_scale=first_scale, enabled=amp == "fp16")

    def autocast(self) -> torch.autocast:
        """Context of the forward pass and the loss."""
        return torch.autocast(self._device.type, dtype=self._type, enabled=self._type is not None)

    def backward(self, loss: Tensor) -> None:
        """Backward pass of a loss."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the loss scale, before something else than `step` reads them."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Optimizer step by the gradients that `backward` left."""
        if self._scaler.is_enabled():
            _start_momenta_at_zero(optimizer)
        self._scaler.step(optimizer)
        self._scaler.update(self._fixed_scale)

    def state_dict(self) -> dict[str, Any] | None:
        """The loss scale, for a checkpoint; None where there is none."""
        return self._scaler.state_dict() or None

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Restore the loss scale. It stays as it is where it is fixed or `state` has none."""
        if self._scaler.is_enabled() and self._fixed_scale is None and state is not None:
            self._scaler.load_state_dict(state)


def _start_momenta_at_zero(optimizer: torch.optim.Optimizer) -> None:
    """Allocate the momenta of torch's fused SGD as zeros before its first step.

    Its own are uninitialised until the first step writes them; if that step is skipped since gradients
    overflow, the second step adds to the old content of the memory.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        if group["momentum"] and group["fused"]:
            for parameter in group["params"]:
                if optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
