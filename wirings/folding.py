"""Folding of batch norms into the layers before them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from wirings.errors import WiringError
from wirings.layers import CONVOLUTIONS, TRANSPOSED
from wirings.wrappers import EvaluationNetwork

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def fold_norms(model: nn.Module, pairs: Sequence[tuple[str, str]]) -> EvaluationNetwork:
    """A copy of a network with batch norms folded into the layers before them.

    Args:
        model: the network; it is not changed.
        pairs: names of a convolution or linear layer and of the batch norm that is its only reader.

    Raises:
        WiringError: there are no such layers.
    """
    folded = copy.deepcopy(model).eval()
    for names in pairs:
        try:
            layer, norm = map(folded.get_submodule, names)
        except AttributeError as error:
            raise WiringError(f"{type(model).__name__}: {error}") from error
        fused = fold_norm(layer, norm)
        if fused is None:
            kinds = f"{type(layer).__name__} and {type(norm).__name__}"
            raise WiringError(f"{names[1]} cannot be folded into {names[0]}: they are {kinds}")
        replace_module(folded, names[0], fused)
        replace_module(folded, names[1], nn.Identity())
    return EvaluationNetwork(folded)


def fold_norm(layer: nn.Module, norm: Any) -> nn.Module | None:
    """A copy of a layer with the following batch norm folded into it, for evaluation.

    Args:
        layer: a convolution, or a linear layer for inputs (batch, features).
        norm: the batch norm.

    Returns:
        The layer; None if they are other modules, the norm has no running statistics, or torch cannot fold
        the two.
    """
    if not isinstance(norm, NORMS) or norm.running_mean is None:
        return None
    if isinstance(layer, CONVOLUTIONS):
        return fuse_conv_bn_eval(layer, norm)
    if isinstance(layer, TRANSPOSED) and layer.groups == 1:
        return fuse_conv_bn_eval(layer, norm, transpose=True)
    if isinstance(layer, nn.Linear) and norm.affine:
        return fuse_linear_bn_eval(layer, norm)
    return None


def replace_module(network: nn.Module, name: str, module: nn.Module) -> None:
    """Replace a network's module of this name."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
