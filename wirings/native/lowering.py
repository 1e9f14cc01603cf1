"""A program of torch.export as items: programs of the engine, and operations that torch runs between them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

from wirings.native.operations import Operations
from wirings.native.torch_operations import HANDLERS, Context, NotSupported, Value, shape_of_one

_aten = torch.ops.aten


@dataclass
class Segment:
    """Consecutive operations that the engine runs.

    Attributes:
        inputs: names of the tensors that it reads.
        outputs: name and shape without the images of the tensors that it writes.
    """

    operations: Operations = field(default_factory=Operations)
    inputs: list[str] = field(default_factory=list)
    outputs: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    values: dict[fx.Node, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TorchCall:
    """An operation that torch runs; nodes in its arguments are names of earlier results.

    Attributes:
        reason: why the engine does not run it.
    """

    name: str
    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    reason: str

    @property
    def label(self) -> str:
        """Name of the operation."""
        return getattr(self.target, "__name__", str(self.target))


@dataclass(frozen=True)
class Name:
    """A result of an earlier item, in arguments of a TorchCall."""

    name: str


class BatchSize:
    """Number of images, in arguments of a TorchCall."""


Item: TypeAlias = "Segment | TorchCall"


@dataclass(frozen=True)
class Lowered:
    """Items in their order.

    Attributes:
        input: name of the images.
        output: the leaves of the result, with a Name for each tensor.
    """

    items: tuple[Item, ...]
    input: str
    output: Any


def lower(program: torch.export.ExportedProgram) -> Lowered:
    """The items of a program with one input of images."""
    return _Lowering(program).run()


class _Lowering:
    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.graph = program.graph
        self.constants = _constants(program)
        (self.input,) = program.graph_signature.user_inputs
        self.items: list[Item] = []
        self.segment = Segment()
        self.available: dict[fx.Node, str] = {}
        (images,) = (node for node in self.graph.nodes if node.name == self.input)
        self.num_images = images.meta["val"].shape[0]

    def run(self) -> Lowered:
        output: Any = None
        for node in self.graph.nodes:
            if node.op == "placeholder":
                if node.name == self.input:
                    self.available[node] = node.name
                elif node.name in self.constants:
                    self.segment.values[node] = self.constants[node.name]
            elif node.op == "output":
                output = fx.map_arg(node.args[0], self._named)
            else:
                self._lower(node)
        self._close()
        return Lowered(tuple(self.items), str(self.input), output)

    def _lower(self, node: fx.Node) -> None:
        if node in self.available:  # a part of a tuple, which the end of a segment has exported
            return
        handler = HANDLERS.get(node.target)
        if handler is None:
            self._call_torch(node, f"{_label(node)} is not an operation of the engine")
            return
        try:
            args = fx.map_arg(node.args, self._value)
            kwargs = fx.map_arg(node.kwargs, self._value)
        except NotSupported as error:
            self._call_torch(node, str(error))
            return
        operations = self.segment.operations
        before = len(operations.list)
        try:
            context = Context(operations, node, self.num_images)
            self.segment.values[node] = handler(context, *args, **kwargs)
        except NotSupported as error:
            del operations.list[before:]
            self._call_torch(node, str(error))

    def _value(self, node: fx.Node) -> Any:
        """What a handler reads: Value, constant tensor, number or tuple."""
        if node in self.segment.values:
            return self.segment.values[node]
        if node in self.available:
            return self._import(node)
        raise NotSupported(f"{node.name} is not a tensor of images")

    def _import(self, node: fx.Node) -> Value:
        value = node.meta["val"]
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            raise NotSupported(f"{node.name} is not a float32 tensor")
        shape = shape_of_one(value, self.num_images)
        if len(shape) not in (1, 3):
            raise NotSupported(f"{node.name} has the shape {tuple(value.shape)}")
        size = (shape[1], shape[2]) if len(shape) == 3 else (1, 1)
        result = Value(self.segment.operations.input(shape[0], size), shape)
        self.segment.inputs.append(self.available[node])
        self.segment.values[node] = result
        return result

    def _call_torch(self, node: fx.Node, reason: str) -> None:
        if node.target is _aten.sym_size.int and node.args[1] == 0:
            self.segment.values[node] = BatchSize()
            return
        values = [self.segment.values.get(one) for one in node.all_input_nodes if one not in self.available]
        if any(isinstance(value, (Value, tuple)) for value in values):
            self._close()
        args, kwargs = fx.map_arg(node.args, self._named), fx.map_arg(node.kwargs, self._named)
        self.items.append(TorchCall(node.name, node.target, args, kwargs, reason))  # type: ignore[arg-type]
        self.available[node] = node.name

    def _named(self, node: fx.Node) -> Any:
        value = self.segment.values.get(node)
        if isinstance(value, (Tensor, BatchSize, int, float)):
            return value
        if node not in self.available:
            self._export(node)
        return Name(self.available[node])

    def _export(self, node: fx.Node) -> None:
        value = self.segment.values.get(node)
        if isinstance(value, Value) and node not in self.available:
            self.segment.operations.output(value.maps)
            self.segment.outputs.append((node.name, value.shape))
            self.available[node] = node.name

    def _close(self) -> None:
        """End the segment. Its values that later items read are exported."""
        values = self.segment.values
        for node, value in list(values.items()):
            if isinstance(value, tuple):
                parts = (user for user in node.users if user.target is operator.getitem)
                values.update({part: value[int(str(part.args[1]))] for part in parts if part not in values})
        for node in list(values):
            if any(user not in values and user not in self.available for user in node.users):
                self._export(node)
        if self.segment.outputs:
            self.items.append(self.segment)
        constants = {
            node: value
            for node, value in values.items()
            if isinstance(value, (Tensor, BatchSize, int, float))
        }
        self.segment = Segment(values=constants)


def _constants(program: torch.export.ExportedProgram) -> dict[str, Tensor]:
    """Weights and buffers by the names of their placeholders."""
    signature = program.graph_signature
    named: Mapping[str, Any] = {**program.state_dict, **program.constants}
    sources = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    return {placeholder: named[name].detach() for placeholder, name in sources.items()}


def _label(node: fx.Node) -> str:
    return getattr(node.target, "__name__", str(node.target))
