"""Effect of a network's operations on its channels: which are constant, needed and remaining.

Dimension 1 of a tensor is that of the channels. After flattening, a channel is a block of features, and
"channel" means one feature. A channel is constant if it has the same value for all inputs, at all positions.
"""

from __future__ import annotations

import copy
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from wirings.channel_trace import TracedNetwork, is_plain
from wirings.folding import NORMS
from wirings.layers import TRANSPOSED


class Groups:
    """Numbers for channels; channels with joined numbers are removed together or not at all."""

    def __init__(self) -> None:
        self._parent: list[int] = []

    def __len__(self) -> int:
        return len(self._parent)

    def new(self, count: int) -> Tensor:
        """Numbers of `count` new channels, each in its own group."""
        first = len(self)
        self._parent.extend(range(first, first + count))
        return torch.arange(first, first + count)

    def join(self, first: Tensor, second: Tensor) -> None:
        """Join each number of `first` with the number at the same index of `second`."""
        for number, other in zip(first.tolist(), second.tolist(), strict=True):
            self._parent[self._find(other)] = self._find(number)

    def table(self) -> Tensor:
        """For each number the representative of its group."""
        return torch.tensor([self._find(number) for number in range(len(self))], dtype=torch.long)

    def _find(self, number: int) -> int:
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number


@dataclass
class Channels:
    """The channels of one tensor, all on the CPU.

    Attributes:
        numbers: of each channel in the Groups.
        constant: which channels are constant.
        value: of the constant channels, float64; 0 for the others.
        needed: which channels must have the same value in the smaller network. Constant ones always do.
    """

    numbers: Tensor
    constant: Tensor
    value: Tensor
    needed: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.constant = self.constant & self.value.isfinite()
        self.value = torch.where(self.constant, self.value, 0.0)
        self.needed = torch.zeros_like(self.constant)

    def __len__(self) -> int:
        return len(self.numbers)


class Operation(ABC):
    """One operation of the graph.

    Attributes:
        node: of the graph.
        sources: the tensors with channels that it reads.
    """

    def __init__(self, node: fx.Node, sources: Sequence[fx.Node]) -> None:
        self.node = node
        self.sources = tuple(sources)

    @abstractmethod
    def compute(self, inputs: Sequence[Channels], groups: Groups) -> Channels:
        """The channels of the result."""

    @abstractmethod
    def read(self, needed: Tensor) -> list[Tensor]:
        """Channels of each input that the needed channels of the result are computed from."""

    def shrink(self, remaining: Tensor, inputs: Sequence[Tensor]) -> nn.Module | None:
        """The layer for the remaining channels, or None if nothing changes; or change the node.

        Args:
            remaining: boolean, channels of the result.
            inputs: boolean, channels of each input.
        """
        return None


class Layer(Operation):
    """A convolution or linear layer that may read every channel of its input."""

    def __init__(self, node: fx.Node, source: fx.Node, module: Any, in_use: Tensor | None) -> None:
        super().__init__(node, [source])
        self.module = module
        self._transposed = is_plain(module, TRANSPOSED)
        used = torch.ones_like(module.weight, dtype=torch.bool) if in_use is None else in_use
        self._edges = self._matrix(used).any(2).cpu()

    def _matrix(self, weight: Tensor) -> Tensor:
        """The weight as (outputs, inputs, positions)."""
        weight = weight.reshape(*weight.shape[:2], -1)
        return weight.transpose(0, 1) if self._transposed else weight

    def compute(self, inputs: Sequence[Channels], groups: Groups) -> Channels:
        (self._input,) = inputs
        self._absorbed = _absorbed(self._input, self.module)
        constant = ~(self._edges & ~self._absorbed).any(1)
        value = self._contribution(self._absorbed) + _bias(self.module)
        return Channels(groups.new(len(constant)), constant, value)

    def _contribution(self, channels: Tensor) -> Tensor:
        """Sum over these constant channels of the input, for each channel of the result."""
        columns = (channels & (self._input.value != 0)).nonzero().flatten()
        weight = self._matrix(self.module.weight.detach())
        sums = weight[:, columns.to(weight.device)].sum(2, dtype=torch.double).cpu()
        return sums @ self._input.value[columns]

    def read(self, needed: Tensor) -> list[Tensor]:
        return [self._edges[needed].any(0) & ~self._absorbed]

    def shrink(self, remaining: Tensor, inputs: Sequence[Tensor]) -> nn.Module | None:
        shift = self._contribution(self._absorbed & ~inputs[0])
        if remaining.all() and inputs[0].all():
            return None
        layer = _without_weights(self.module)
        weight, bias = self.module.weight.detach(), self.module.bias
        rows, columns = (mask.nonzero().flatten().to(weight.device) for mask in (remaining, inputs[0]))
        for dim, indices in ((1, rows), (0, columns)) if self._transposed else ((0, rows), (1, columns)):
            weight = weight.index_select(dim, indices)
        layer.weight = _parameter(weight)
        if bias is not None or shift[remaining].any():
            layer.bias = _parameter((_bias(self.module) + shift)[remaining].to(weight))
        kind = "features" if isinstance(layer, nn.Linear) else "channels"
        setattr(layer, f"in_{kind}", len(columns))
        setattr(layer, f"out_{kind}", len(rows))
        return layer


class Depthwise(Operation):
    """A convolution with one filter for each channel."""

    def __init__(self, node: fx.Node, source: fx.Node, module: Any, in_use: Tensor | None) -> None:
        super().__init__(node, [source])
        self.module = module
        weight = module.weight.detach().cpu().double().flatten(1)
        self._sums = weight.sum(1)
        self._edges = torch.ones_like(weight, dtype=torch.bool) if in_use is None else in_use.cpu().flatten(1)

    def compute(self, inputs: Sequence[Channels], groups: Groups) -> Channels:
        (source,) = inputs
        absorbed = _absorbed(source, self.module)
        self._reads = self._edges.any(1) & ~absorbed
        value = self._sums * torch.where(absorbed, source.value, 0.0) + _bias(self.module)
        return Channels(source.numbers, ~self._reads, value)

    def read(self, needed: Tensor) -> list[Tensor]:
        return [needed & self._reads]

    def shrink(self, remaining: Tensor, inputs: Sequence[Tensor]) -> nn.Module | None:
        if remaining.all():
            return None
        return _with_rows(self.module, remaining, "in_channels", "out_channels", "groups")


class Pointwise(Operation):
    """An elementwise function of one or two tensors: activations, sums, products, norms."""

    def __init__(
        self, node: fx.Node, sources: Sequence[fx.Node], traced: TracedNetwork, product: bool
    ) -> None:
        super().__init__(node, sources)
        self._traced = traced
        self.module = traced.layer(node)
        self._product = product

    def compute(self, inputs: Sequence[Channels], groups: Groups) -> Channels:
        first, last = inputs[0], inputs[-1]
        if last is not first:
            groups.join(first.numbers, last.numbers)
        self._zero = [source.constant & (source.value == 0) for source in inputs]
        value = self._run([source.value for source in inputs])
        constant = first.constant & last.constant
        if self._product:
            zero = self._zero[0] | self._zero[1]
            constant, value = constant | zero, torch.where(zero, 0.0, value)
        return Channels(first.numbers, constant, value)

    def _run(self, values: list[Tensor]) -> Tensor:
        """The operation on one number for each channel, in the types of the network."""
        device = next(iter(self.module.parameters()), torch.empty(0)).device if self.module else None
        shapes = [(1, -1, *(1,) * (len(self._traced.shapes[source]) - 2)) for source in self.sources]
        tensors = {
            source: value.to(self._traced.types[source]).reshape(shape).to(device)
            for source, value, shape in zip(self.sources, values, shapes, strict=True)
        }
        args, kwargs = fx.map_arg((self.node.args, self.node.kwargs), lambda node: tensors[node].clone())
        if self.module is not None:
            result = self.module(*args, **kwargs)
        elif self.node.op == "call_method":
            result = getattr(args[0], str(self.node.target))(*args[1:], **kwargs)
        else:
            function: Any = self.node.target
            result = function(*args, **kwargs)
        return torch.as_tensor(result).flatten().cpu().double()

    def read(self, needed: Tensor) -> list[Tensor]:
        if self._product:
            return [needed & ~zero for zero in reversed(self._zero)]
        return [needed for _ in self.sources]

    def shrink(self, remaining: Tensor, inputs: Sequence[Tensor]) -> nn.Module | None:
        if self.module is None or remaining.all():
            return None
        if is_plain(self.module, NORMS):
            return _with_rows(self.module, remaining, "num_features")
        if is_plain(self.module, (nn.PReLU,)) and self.module.num_parameters != 1:
            return _with_rows(self.module, remaining, "num_parameters")
        return None


class ChannelWise(Operation):
    """An operation on each channel of the first source separately, such as pooling.

    A second source is read only for its shape, and has the same number of channels.
    """

    def __init__(self, node: fx.Node, sources: Sequence[fx.Node], keeps: str) -> None:
        super().__init__(node, sources)
        self._keeps = keeps
        """Constants that the operation preserves: "all", "zero" or "none"."""

    def compute(self, inputs: Sequence[Channels], groups: Groups) -> Channels:
        source = inputs[0]
        if len(inputs) > 1:
            groups.join(source.numbers, inputs[1].numbers)
        same = {"all": source.constant, "zero": source.constant & (source.value == 0)}
        constant = same.get(self._keeps, torch.zeros_like(source.constant))
        return Channels(source.numbers, constant, source.value)

    def read(self, needed: Tensor) -> list[Tensor]:
        return [needed, *(torch.zeros_like(needed) for _ in self.sources[1:])]


class Reshape(Operation):
    """Flattening to features, and flattening, adding or removing positions."""

    def __init__(self, node: fx.Node, source: fx.Node, before: torch.Size, after: torch.Size) -> None:
        super().__init__(node, [source])
        self._block = after[1] // before[1]
        self._dims = len(after)
        self._adds = len(before) == 2

    def compute(self, inputs: Sequence[Channels], groups: Groups) -> Channels:
        (source,) = inputs
        fields = (source.numbers, source.constant, source.value)
        return Channels(*(values.repeat_interleave(self._block) for values in fields))

    def read(self, needed: Tensor) -> list[Tensor]:
        return [needed.reshape(-1, self._block).any(1)]

    def shrink(self, remaining: Tensor, inputs: Sequence[Tensor]) -> nn.Module | None:
        """Replace the operation by one that does not name the number of channels."""
        if remaining.all():
            return None
        source, full = self.sources[0], slice(None)
        self.node.op = "call_function"
        if self._adds:
            self.node.target = operator.getitem
            self.node.args = (source, (full, full, *(None,) * (self._dims - 2)))
        else:
            self.node.target = torch.flatten
            self.node.args = (source, self._dims - 1)
        self.node.kwargs = {}
        return None


class Concatenation(Operation):
    """Concatenation of the channels of several tensors."""

    def compute(self, inputs: Sequence[Channels], groups: Groups) -> Channels:
        self._counts = [len(source) for source in inputs]
        numbers = torch.cat([source.numbers for source in inputs])
        constant = torch.cat([source.constant for source in inputs])
        return Channels(numbers, constant, torch.cat([source.value for source in inputs]))

    def read(self, needed: Tensor) -> list[Tensor]:
        return list(torch.split(needed, self._counts))


def _absorbed(source: Channels, module: Any) -> Tensor:
    """Constant channels that add one number to each channel of the result, the same at all positions."""
    return source.constant & ((source.value == 0) | _is_uniform(module))


def _is_uniform(module: Any) -> bool:
    """Whether equal inputs give equal outputs: no zeros around the input."""
    if isinstance(module, nn.Linear):
        return True
    if is_plain(module, TRANSPOSED):
        return False
    if module.padding_mode != "zeros" or module.padding == "valid":
        return True
    if module.padding == "same":
        return all_equal(module.kernel_size, 1)
    return all_equal(module.padding, 0)


def all_equal(setting: Any, number: int) -> bool:
    return all(value == number for value in (setting if isinstance(setting, (tuple, list)) else (setting,)))


def _bias(module: Any) -> Tensor:
    bias = module.bias
    return torch.zeros(1, dtype=torch.double) if bias is None else bias.detach().cpu().double()


def _without_weights(module: nn.Module) -> nn.Module:
    """A copy without the weights."""
    memo = {id(parameter): None for parameter in module.parameters()}
    return copy.deepcopy(module, memo)


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.clone(), requires_grad=False)


def _with_rows(module: nn.Module, remaining: Tensor, *sizes: str) -> nn.Module:
    """A copy with the remaining rows of parameters and buffers; the attributes `sizes` are their number."""
    layer = copy.deepcopy(module)
    for name, parameter in layer.named_parameters(recurse=False):
        setattr(layer, name, _parameter(parameter.detach()[remaining.to(parameter.device)]))
    for name, buffer in layer.named_buffers(recurse=False):
        if buffer.dim():
            setattr(layer, name, buffer[remaining.to(buffer.device)])
    for name in sizes:
        setattr(layer, name, int(remaining.sum()))
    return layer
