"""Optimizers. A factory of your own is named in an experiment as `optimizer: my_module:my_factory`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from genutil.components import locate


def sgd(
    parameters: Iterable[torch.nn.Parameter],
    lr: float,
    momentum: float,
    weight_decay: float,
    nestorov: bool,
) -> torch.optim.Optimizer:
    """SGD with momentum and weight decay on all parameters, unused edges included.

    One fused pass over weights, gradients and momenta, on the CPU and on GPUs.
    """
    return torch.optim.SGD(
        parameters, lr, momentum=momentum, weight_decay=weight_decay, nesterov=nestorov, fused=True
    )


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"sgd": sgd}


def find_optimizer(optimizer: str) -> Callable[..., Any]:
    """The factory of this name, or of `module:function`."""
    return OPTIMIZERS.get(optimizer) or locate(optimizer, "optimizer")
