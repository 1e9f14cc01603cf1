"""Arithmetic in 16 bits where it is safe, with float32 weights: automatic mixed precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """How forward, backward and optimizer step calculate.

    Args:
        amp: bf16 or fp16: products, convolutions and maps in 16 bits; None: everything as it is.
        device: where.
        loss_scale: fp16: a fixed scale; None: one that follows the gradients.

    fp16 has a small range, so its loss is scaled up before the backward pass, and a step whose gradients
    overflow is left out.
    """

    def __init__(self, amp: str | None, device: torch.device, loss_scale: float | None = None) -> None:
        self._type, self._device = _TYPES[amp] if amp else None, device
        self._fixed_scale = loss_scale
        self._scaler = torch.amp.GradScaler(device.type) if amp == "fp16" else None
        if self._scaler is not None and loss_scale is not None:
            self._scaler.load_state_dict({**self._scaler.state_dict(), "scale": loss_scale})

    def autocast(self) -> AbstractContextManager[Any]:
        """For the forward pass and the loss."""
        if self._type is None:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._type)

    def backward(self, loss: Tensor) -> None:
        """Backward pass of a loss."""
        if self._scaler is not None:
            loss = self._scaler.scale(loss)
        loss.backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Make the gradients those of the loss, before something else than `step` reads them."""
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Optimizer step by the gradients that `backward` left."""
        if self._scaler is None:
            optimizer.step()
            return
        _start_momenta_at_zero(optimizer)
        self._scaler.step(optimizer)
        self._scaler.update(self._fixed_scale)

    def state(self) -> dict[str, Any] | None:
        """The scale of the loss, for a checkpoint; None where there is none."""
        return None if self._scaler is None else self._scaler.state_dict()

    def restore(self, state: dict[str, Any] | None) -> None:
        """Go on with the scale that `state` gave."""
        if self._scaler is not None and state is not None and self._fixed_scale is None:
            self._scaler.load_state_dict(state)


def _start_momenta_at_zero(optimizer: torch.optim.Optimizer) -> None:
    """torch's fused SGD takes uninitialised memory for its momenta in the first step, which fills them; where
    that step is left out since its gradients overflow, the second one would add to what the memory held.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        if group["momentum"] and group["fused"]:
            for parameter in group["params"]:
                if optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
