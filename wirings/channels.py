"""Removal of dead channels from networks with sparse weights, for evaluation."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from wirings.channel_flow import ChannelFlow, reason_of_layer
from wirings.channel_report import ChannelReport, LayerChannels
from wirings.channel_trace import NotTraceable, name_in_graph, trace
from wirings.errors import WiringError, first_line
from wirings.layers import LAYER_TYPES, TRANSPOSED
from wirings.names import did_you_mean
from wirings.rng import preserve_rng_state
from wirings.structure import num_parameters
from wirings.wrappers import EvaluationNetwork


def remove_dead_channels(
    model: nn.Module, example: Tensor, in_use: Mapping[str, Tensor] | None = None
) -> tuple[EvaluationNetwork, ChannelReport]:
    """A new, smaller network for evaluation, with the output of `model` up to rounding.

    A channel is removed if the output does not depend on it through edges in use; or if it is constant, and
    its contribution can be added to biases: the constant is 0, or its readers are linear layers and
    convolutions without zero padding. Channels that are added or multiplied with each other are removed
    together or not at all. Channels that an unknown operation reads remain. Batch norms are folded into the
    layers before them. The network accepts inputs of other sizes if `model` does.

    Args:
        model: a network that torch.fx can trace, called with one tensor. It is not changed. Any other network
            is copied with all channels, and the report says why.
        example: one batch of inputs, for the shapes of all tensors; one input is enough.
        in_use: boolean, of a weight's shape, by the weight's name in the state dict: which entries are edges
            in use. All others must be zero. In a layer that is not named all entries are in use.

    Returns:
        The network, and the report, which is also its attribute `report`.

    Raises:
        WiringError: a name of `in_use` is not a weight; a tensor is not boolean or has another shape; an
            unused weight is not zero; the network cannot be copied, or does not run on the example.
    """
    if not isinstance(example, Tensor):
        raise WiringError(f"example must be one batch of inputs, a tensor; it is a {type(example).__name__}")
    weights = _check_in_use(model, in_use or {})
    copied = copy_network(model).eval()
    masks = {
        name_in_graph(name): weights[id(original.weight)]
        for name, original in model.named_modules()
        if id(getattr(original, "weight", None)) in weights
    }
    params = num_parameters(copied)
    with torch.no_grad(), preserve_rng_state():
        try:
            flow = ChannelFlow(trace(copied, example), masks)
        except NotTraceable as error:
            # Another copy: the first one has run, and a network may change its buffers in a forward pass.
            return _reported(copy_network(model), ChannelReport((), params, params, str(error)))
        remaining, layers = flow.find_remaining(), _layers(flow)
        flow.shrink(remaining)
    rows = tuple(_row(flow, remaining, node, layer) for node, layer in layers.items())
    small = flow.traced.module
    return _reported(small, ChannelReport(rows, params, num_parameters(small)))


def _reported(network: nn.Module, report: ChannelReport) -> tuple[EvaluationNetwork, ChannelReport]:
    small = EvaluationNetwork(network)
    small.report = report
    return small, report


def _check_in_use(model: nn.Module, in_use: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """Edges in use by the id of the weight.

    Raises:
        WiringError: a name, type or shape is wrong, or a weight that is not in use is not zero.
    """
    state = model.state_dict(keep_vars=True)
    weights = {name: value for name, value in state.items() if isinstance(value, Tensor) and value.dim() > 1}
    for name, used in in_use.items():
        if name not in weights:
            hint = did_you_mean(name, weights)
            raise WiringError(f"in_use has {name}, which is not a weight of the network{hint}")
        weight = weights[name].detach()
        if used.dtype != torch.bool or used.shape != weight.shape:
            raise WiringError(
                f"in_use of {name} must be boolean, of shape {tuple(weight.shape)}; "
                f"it is {used.dtype}, of shape {tuple(used.shape)}"
            )
        wrong = int(((weight != 0) & ~used.to(weight.device)).sum())
        if wrong:
            raise WiringError(
                f"{wrong} weights of {name} are not in use and not zero; set them to zero, or in_use to True"
            )
    return {id(weights[name]): used for name, used in in_use.items()}


def copy_network(model: nn.Module) -> nn.Module:
    """A copy of a network, by copy.deepcopy.

    Raises:
        WiringError: it cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:  # a network of the user's may raise anything
        raise WiringError(f"the network cannot be copied (copy.deepcopy): {first_line(error)}") from error


def _layers(flow: ChannelFlow) -> dict[fx.Node, nn.Module]:
    """Convolutions and linear layers of the traced network."""
    layers = {node: flow.traced.layer(node) for node in flow.traced.shapes}
    return {node: layer for node, layer in layers.items() if isinstance(layer, LAYER_TYPES)}


def _row(flow: ChannelFlow, remaining: Mapping[fx.Node, Tensor], node: fx.Node, before: Any) -> LayerChannels:
    """The row of a layer after the removal; `before` is the layer before it."""
    traced, name = flow.traced, str(node.target)
    shape = traced.shapes[node]
    source = node.all_input_nodes[0]
    if isinstance(before, nn.Linear):
        positions = shape[1:-1].numel()
    else:
        positions = (traced.shapes[source] if isinstance(before, TRANSPOSED) else shape)[2:].numel()
    macs = [int(layer.weight.numel()) * positions for layer in (before, traced.layer(node))]
    if node not in flow.operations:
        left = count = int(getattr(before, "out_channels", getattr(before, "out_features", 0)))
        constant, reason = 0, reason_of_layer(before, name, traced)
    else:
        mask = remaining[node]
        count, left = len(mask), int(mask.sum())
        constant = int((mask & flow.channels[node].constant).sum())
        reason = flow.reason_to_stay(node)
    return LayerChannels(name, count, left, constant, macs[0], macs[1], reason)
