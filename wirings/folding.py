"""Networks without wiring: nothing can be removed, but batch norms fold into the layers before them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from wirings.compact_network import EvaluationOnly
from wirings.errors import WiringError


class FoldedNetwork(EvaluationOnly):
    """A network whose norms are folded."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits


def fold_norms(model: nn.Module, pairs: Sequence[tuple[str, str]]) -> FoldedNetwork:
    """A copy of a network with batch norms folded into the layers before them.

    Args:
        model: the network; it is not changed.
        pairs: names of a convolution or linear layer and of the batch norm that alone reads it.

    Raises:
        WiringError: there are no such layers.
    """
    folded = copy.deepcopy(model).eval()
    for names in pairs:
        try:
            layer, norm = map(folded.get_submodule, names)
        except AttributeError as error:
            raise WiringError(f"{type(model).__name__}: {error}") from error
        _replace(folded, names[0], _fused(names, layer, norm))
        _replace(folded, names[1], nn.Identity())
    return FoldedNetwork(folded)


def _fused(names: tuple[str, str], layer: nn.Module, norm: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
        return fuse_conv_bn_eval(layer, norm)
    if isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
        return fuse_linear_bn_eval(layer, norm)
    kinds = f"{type(layer).__name__} and {type(norm).__name__}"
    raise WiringError(f"{names[1]} cannot be folded into {names[0]}: they are {kinds}")


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
