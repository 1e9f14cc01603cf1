"""Wired layers: torch's convolutions and linear layers, with an edge rule that selects their weights.

`wire_layer` changes the class of a layer in place, so that its parameters keep their names. The rule is its
submodule `wiring`; only a rule that has buffers adds names to the state dict.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from wirings.errors import WiringError
from wirings.rules.base import EdgeRule, PotentialEdges

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYER_TYPES: tuple[type[nn.Module], ...] = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)
"""The layers that can be wired; so can their subclasses."""

_READ_WEIGHTS_OF_CHILDREN = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
"""Modules of torch that read the weights of their layers without calling the layers."""


class WiredLayer:
    """Base class of torch's layers that `wire` has wired.

    Attributes:
        wiring: the edge rule of the layer's weight; its name is part of the state dict.
    """

    wiring: EdgeRule

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # The class is made at run time, so pickle and deepcopy need a function that makes it.
        base, reads_weight = type(self)._made_from  # type: ignore[attr-defined]
        return _empty_layer, (base, reads_weight), self.__dict__


class _WiredLinear(WiredLayer):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.wiring(), self.bias)  # type: ignore[attr-defined]


class _WiredConv(WiredLayer):
    def forward(self, input: Tensor) -> Tensor:
        maps: Tensor = self._conv_forward(input, self.wiring(), self.bias)  # type: ignore[attr-defined]
        return maps


class _WiredByAttribute(WiredLayer):
    """For layers whose own forward, or whose parent, reads the attribute `weight`: it returns the weights in
    use, as with torch's parametrizations. The parameter is `_parameters["weight"]`.
    """

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self.wiring()
        return weight


@functools.cache
def _wired_class(base: type[nn.Module], reads_weight: bool) -> type[nn.Module]:
    """The subclass of a layer's class that multiplies with the weights in use."""
    mixin: type[WiredLayer] = _WiredByAttribute
    if not reads_weight:
        mixin = _WiredLinear if base is nn.Linear else _WiredConv
    return type(f"Wired{base.__name__}", (mixin, base), {"_made_from": (base, reads_weight)})


def _empty_layer(base: type[nn.Module], reads_weight: bool) -> nn.Module:
    wired_class = _wired_class(base, reads_weight)  # type: ignore[arg-type]
    return wired_class.__new__(wired_class)


def check_layer(name: str, layer: nn.Module) -> None:
    """Refuse a layer that cannot be wired.

    Args:
        name: of the layer in its network, for the message.
        layer: any module.

    Raises:
        WiringError: it is wired already, of another type, without weights yet, computes its weight by a
            parametrization, or its weight has a NaN.
    """
    class_name = type(layer).__name__
    if isinstance(layer, WiredLayer):
        raise WiringError(f"{name} is wired already; call wirings.unwire(model) first")
    if not isinstance(layer, LAYER_TYPES):
        names = ", ".join(known.__name__ for known in LAYER_TYPES)
        raise WiringError(f"{name} is a {class_name}, which cannot be wired; {names} can")
    weight = layer._parameters.get("weight")
    if weight is None:
        raise WiringError(
            f"{name}: its weight is not a parameter but computed; remove its parametrization first "
            "(torch.nn.utils.parametrize.remove_parametrizations)"
        )
    if is_lazy(weight):
        raise WiringError(f"{name} has no weights yet; run a batch through the network first")
    if not weight.is_floating_point():
        raise WiringError(f"{name} has weights of type {weight.dtype}; only floating-point weights are wired")
    if not weight.is_meta and torch.isnan(weight).any():
        raise WiringError(f"{name} has a weight that is NaN, so its strongest edges are not defined")


def potential_edges_of(name: str, layer: nn.Module) -> PotentialEdges:
    """The potential edges of a layer: all entries of its weight, with a row for each output (of a transposed
    convolution: each input) channel.
    """
    weight = weight_of(layer)
    targets, sources, *kernel = weight.shape
    return PotentialEdges(
        num_targets=targets,
        num_sources=sources,
        num_inputs=sources,
        num_outputs=targets,
        kernel=tuple(kernel),
        layer=layer,
        name=name,
    )


def wire_layer(layer: nn.Module, rule: EdgeRule, parent: nn.Module | None) -> None:
    """Make a layer multiply with the weights that a rule selects.

    Args:
        layer: changed in place.
        rule: made for `potential_edges_of(name, layer)`.
        parent: the module that contains the layer.
    """
    base = type(layer)
    plain = base in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    reads_weight = not plain or isinstance(parent, _READ_WEIGHTS_OF_CHILDREN)
    layer.__class__ = _wired_class(base, reads_weight)  # type: ignore[arg-type]
    layer.wiring = rule.train(layer.training)
    rule.prepare_layer()


@torch.no_grad()
def weights_in_evaluation(layer: nn.Module) -> Tensor:
    """A copy of the weights that a wired layer multiplies with in evaluation."""
    assert isinstance(layer, WiredLayer)
    rule = layer.wiring
    training = rule.training
    weight: Tensor = rule.eval()().clone()
    rule.train(training)
    return weight


@torch.no_grad()
def unwire_layer(layer: nn.Module, weight: Tensor) -> None:
    """Make a wired layer a plain one with this weight."""
    base, _ = type(layer)._made_from  # type: ignore[attr-defined]
    weight_of(layer).copy_(weight)
    assert isinstance(layer, WiredLayer)
    layer.wiring.release_layer()
    del layer.wiring
    layer.__class__ = base


def weight_of(layer: nn.Module) -> nn.Parameter:
    """The parameter of a layer, also if its attribute `weight` returns the weights in use."""
    weight = layer._parameters["weight"]
    assert weight is not None
    return weight
