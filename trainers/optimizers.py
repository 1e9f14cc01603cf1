"""Optimizers. A factory of your own is named in an experiment as `optimizer: my_module:my_factory`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from genutil.config.components import locate
from genutil.config.registries import OPTIMIZERS

Parameters = Iterable[nn.Parameter] | Sequence[dict[str, Any]]
"""Parameters, or groups of them with their own settings, as torch's optimizers take them."""


def sgd(
    parameters: Parameters,
    lr: float,
    momentum: float,
    weight_decay: float,
    nestorov: bool,
) -> torch.optim.Optimizer:
    """SGD with momentum and weight decay on all parameters, unused edges included, or by groups.

    One fused pass over weights, gradients and momenta, on the CPU and on GPUs.
    """
    return torch.optim.SGD(
        parameters, lr, momentum=momentum, weight_decay=weight_decay, nesterov=nestorov, fused=True
    )


def without_decay_of_norms(model: nn.Module) -> list[dict[str, Any]]:
    """Two groups of parameters: those of batch norms, without weight decay, and all others.

    Batch norms are found by their class, not by their names: those of a ResNet's shortcuts are called
    `downsample.1`.
    """
    norms = [
        parameter
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        for parameter in module.parameters(recurse=False)
    ]
    norm_ids = {id(parameter) for parameter in norms}
    others = [parameter for parameter in model.parameters() if id(parameter) not in norm_ids]
    return [{"params": norms, "weight_decay": 0.0}, {"params": others}]


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def make_lr_tensor(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Turn the learning rates into tensors: a CUDA graph of a step would keep a number as a constant."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), device=device)


def optimizer_names(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[str]:
    """Names of the parameters in the optimizer's order, by which its state is stored.

    Parameters that are not the model's are named by their number.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [names.get(id(parameter), str(number)) for number, parameter in enumerate(ordered)]


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Restore momenta and the like; settings such as the weight decay stay those of the experiment.

    Args:
        optimizer: has the parameters in the order of `state`.
        state: what `optimizer.state_dict()` returned.
    """
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})


def find_optimizer(optimizer: str) -> Callable[..., Any]:
    """The factory of this name, or of `module:function`.

    Raises:
        ConfigError: there is no such module or function.
    """
    return locate(OPTIMIZERS.get(optimizer, optimizer), "optimizer")  # type: ignore[no-any-return]
