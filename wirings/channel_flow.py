"""Channels on which a network's output depends: constants propagated forward, needed channels backward."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from wirings.channel_operations import Channels, Groups, Operation
from wirings.channel_recognition import recognize
from wirings.channel_trace import TracedNetwork, fix_number_of_channels, reads_no_channels
from wirings.folding import replace_module
from wirings.layers import CONVOLUTIONS, TRANSPOSED


class ChannelFlow:
    """Channels of all tensors of a traced network.

    The graph has no cycles, so one pass in each direction is enough.

    Args:
        traced: the network.
        in_use: boolean, by the name of a layer: which entries of its weight are in use; not named: all.

    Attributes:
        traced: the network.
        groups: for each channel number its group; the channels of a group are removed together.
        channels: of each node whose value has channels.
        operations: of each node whose operation on channels is known.
    """

    def __init__(self, traced: TracedNetwork, in_use: Mapping[str, Tensor]) -> None:
        self.traced = traced
        numbers = Groups()
        self.channels: dict[fx.Node, Channels] = {}
        self.operations: dict[fx.Node, Operation] = {}
        self._unremovable: list[tuple[Tensor, str]] = []
        for node in traced.module.graph.nodes:
            operation = recognize(node, traced, in_use.get(str(node.target)))
            if operation is None:
                self._keep_all(node, numbers)
                continue
            self.operations[node] = operation
            inputs = [self.channels[source] for source in operation.sources]
            self.channels[node] = operation.compute(inputs, numbers)
        self.groups = numbers.table()
        for node in reversed(self.operations):
            operation = self.operations[node]
            reads = operation.read(self.channels[node].needed)
            for source, read in zip(operation.sources, reads, strict=True):
                self.channels[source].needed |= read

    def _keep_all(self, node: fx.Node, groups: Groups) -> None:
        """Keep the channels of the node's inputs and of its result."""
        name = _describe(node, self.traced)
        if not reads_no_channels(node, self.traced):
            reason = (
                "its output is the network's output"
                if node.op == "output"
                else f"its output goes through an operation whose channels are not known: {name}"
            )
            for source in node.all_input_nodes:
                if source in self.channels:
                    self.channels[source].needed[:] = True
                    self._unremovable.append((self.channels[source].numbers, reason))
        shape = self.traced.shapes.get(node, torch.Size())
        if len(shape) > 1:
            numbers, zeros = groups.new(shape[1]), torch.zeros(shape[1], dtype=torch.double)
            self.channels[node] = Channels(numbers, torch.zeros_like(zeros, dtype=torch.bool), zeros)
            self._unremovable.append((numbers, f"its channels are in one group with those of {name}"))

    def find_needed(self) -> Tensor:
        """Boolean, by group: needed for the output, or read by unknown operations."""
        needed = torch.zeros(len(self.groups), dtype=torch.bool)
        for channels in self.channels.values():
            needed[self.groups[channels.numbers[channels.needed]]] = True
        for numbers, _ in self._unremovable:
            needed[self.groups[numbers]] = True
        return needed

    def find_remaining(self) -> dict[fx.Node, Tensor]:
        """Boolean, for each node: the needed channels, or one, since torch requires one."""
        remaining = self.find_needed()
        groups = {node: self.groups[channels.numbers] for node, channels in self.channels.items()}
        for members in groups.values():
            if not remaining[members].any():
                remaining[members[:1]] = True
        return {node: remaining[members] for node, members in groups.items()}

    def reason_to_stay(self, node: fx.Node) -> str:
        """Why channels of the node remain without being needed; "" if there is no such reason."""
        groups = self.groups[self.channels[node].numbers]
        for numbers, reason in self._unremovable:
            if torch.isin(self.groups[numbers], groups).any():
                return reason
        return ""

    def shrink(self, remaining: Mapping[fx.Node, Tensor]) -> None:
        """Remove the other channels from the traced network."""
        for node, operation in self.operations.items():
            if not remaining[node].all():
                fix_number_of_channels(node, self.traced)
            layer = operation.shrink(remaining[node], [remaining[source] for source in operation.sources])
            if layer is not None:
                replace_module(self.traced.module, str(node.target), layer)
        self.traced.module.graph.eliminate_dead_code()  # sizes that are not read any more
        self.traced.module.graph.lint()
        self.traced.module.recompile()


def reason_of_layer(layer: nn.Module, name: str, traced: TracedNetwork) -> str:
    """Why a layer is not a known operation."""
    if name in traced.shared:
        return "it is called more than once, or shares a parameter with another layer"
    groups = getattr(layer, "groups", 1)
    if groups != 1:
        return f"it is a convolution of {groups} groups"
    return "its class, its hooks or the shape of its input are not those of a plain layer"


def _describe(node: fx.Node, traced: TracedNetwork) -> str:
    """The node's operation, for a sentence."""
    if node.op == "placeholder":
        return "the network's input"
    if node.op == "get_attr":
        return f"the parameter {node.target}"
    if node.op == "call_method":
        return f"Tensor.{node.target}"
    layer = traced.layer(node)
    if layer is None:
        module = (getattr(node.target, "__module__", None) or "torch").lstrip("_").partition("._")[0]
        return f"{module}.{getattr(node.target, '__name__', node.target)}"
    kind = type(layer).__name__
    if isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED)) and layer.groups > 1:
        kind += f" of {layer.groups} groups"
    return f"{node.target} ({kind}{', shared' if node.target in traced.shared else ''})"
