"""Tracing of a network to a graph of operations without side effects, for the analysis of its channels."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from wirings.errors import WiringError, first_line
from wirings.folding import NORMS, fold_norm, replace_module
from wirings.layers import LAYER_TYPES
from wirings.rng import preserve_rng_state
from wirings.wrappers import OneInput

_PREFIX = "network"

_LAYERS: tuple[type[nn.Module], ...] = (*LAYER_TYPES, *NORMS)
_IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
# torchvision wraps its stochastic depth, so that it is one operation of the graph.
_DROPS = {
    "dropout": 2,
    "dropout1d": 2,
    "dropout2d": 2,
    "dropout3d": 2,
    "alpha_dropout": 2,
    "stochastic_depth": 3,
}
"""Functions that compute nothing in evaluation mode, with the position of their argument `training`."""


class NotTraceable(Exception):
    """The network has no equivalent graph. The message is a sentence for the user."""


@dataclass(frozen=True)
class TracedNetwork:
    """A network in evaluation mode as a graph.

    Attributes:
        module: the graph with its layers, under their names in the network.
        shapes: shape of each node whose value is one tensor, for the example.
        types: its data type.
        shared: names of modules with weights that are called more than once, or share a weight with others.
    """

    module: fx.GraphModule
    shapes: dict[fx.Node, torch.Size]
    types: dict[fx.Node, torch.dtype]
    shared: frozenset[str]

    def layer(self, node: fx.Node) -> Any:
        """The module that the node calls, or None."""
        return self.module.get_submodule(str(node.target)) if node.op == "call_module" else None


def trace(model: nn.Module, example: Tensor) -> TracedNetwork:
    """The graph of a network in evaluation mode; batch norms are part of the layers before them.

    The layers are those of `model`, except for layers with a batch norm after them, which are copies. No
    operation of the graph reads a tensor after another operation has overwritten it.

    Args:
        model: in evaluation mode.
        example: one batch of inputs.

    Raises:
        WiringError: the network does not run on the example.
        NotTraceable: it cannot be traced, or the graph does not compute the same.
    """
    expected = _run_model(model, example)
    root = OneInput(model)
    try:
        with preserve_rng_state():
            # Another seed than in the run above, so that a random number that tracing has made a constant of
            # the graph is detected.
            torch.manual_seed(torch.initial_seed() ^ 1)
            graph = _Tracer().trace(root)
        module, shared = _with_names_of_network(root, graph)
        run = _Recorder(module)
        with preserve_rng_state():
            result = run.run(example.clone())
    except Exception as error:  # a network of the user's may raise anything
        raise NotTraceable(f"the network cannot be traced: {first_line(error)}") from error
    if not _same(result, expected):
        raise NotTraceable("the traced network computes another result than the network")
    shapes = {node: value.shape for node, value in run.values.items()}
    types = {node: value.dtype for node, value in run.values.items()}
    traced = TracedNetwork(module, shapes, types, shared)
    _read_results_of_writers(traced, run)
    _remove_identities(traced)
    module.graph.eliminate_dead_code()
    _fold_norms(traced)
    module.graph.lint()
    module.recompile()
    nodes = set(module.graph.nodes)
    return replace(traced, shapes={node: shape for node, shape in shapes.items() if node in nodes})


def name_in_graph(name: str) -> str:
    """Name in the graph of a module by its name in the network; the network itself may be a layer."""
    return name or _PREFIX


def is_plain(module: nn.Module | None, classes: tuple[type[nn.Module], ...]) -> bool:
    """Whether the module computes the same as one of these classes of torch: no other forward method, no
    hooks, no parametrization.
    """
    if module is None or parametrize.is_parametrized(module):
        return False
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    return any(isinstance(module, cls) and _runs_as(module, cls) for cls in classes)


def argument(node: fx.Node, name: str, index: int, default: Any) -> Any:
    """The argument of a function or method, by name or by index."""
    if name in node.kwargs:
        return node.kwargs[name]
    return node.args[index] if len(node.args) > index else default


def position(dim: Any, dims: int) -> int | None:
    """Non-negative index of a dimension, or None if `dim` is not a number."""
    return dim % dims if isinstance(dim, int) and not isinstance(dim, bool) else None


class _Tracer(fx.Tracer):
    """Treats a user's subclass that only adds a constructor to a layer of torch as that layer."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        inherited = any(isinstance(m, cls) and _runs_as(m, cls) for cls in _LAYERS)
        return inherited or super().is_leaf_module(m, module_qualified_name)


@dataclass(frozen=True)
class _Value:
    """Address and shape of a tensor when it was computed."""

    shape: torch.Size
    dtype: torch.dtype
    stride: tuple[int, ...]
    address: int
    storage: int

    def is_tensor(self, other: _Value) -> bool:
        """Whether both are the same tensor."""
        return (self.address, self.shape, self.stride) == (other.address, other.shape, other.stride)


class _Recorder(fx.Interpreter):
    """Runs the graph and records each tensor. All remain in memory, so that addresses are unique."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[fx.Node, _Value] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor) and n.op != "output":
            storage = result.untyped_storage().data_ptr()
            self.values[n] = _Value(result.shape, result.dtype, result.stride(), result.data_ptr(), storage)
        return result


def _runs_as(module: nn.Module, cls: type[nn.Module]) -> bool:
    has_forward = type(module).forward is cls.forward
    convolves = getattr(cls, "_conv_forward", None)
    return has_forward and getattr(type(module), "_conv_forward", None) is convolves


def _run_model(model: nn.Module, example: Tensor) -> Any:
    try:
        with preserve_rng_state():
            return model(example.clone())
    except Exception as error:  # a network of the user's may raise anything
        raise WiringError(
            f"the network does not run on an example of shape {tuple(example.shape)}: {first_line(error)}"
        ) from error


def _same(result: Any, expected: Any) -> bool:
    try:
        torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4, equal_nan=True)
    except (AssertionError, TypeError):
        return False
    return True


def _with_names_of_network(root: nn.Module, graph: fx.Graph) -> tuple[fx.GraphModule, frozenset[str]]:
    """The graph with the names of the network, and the names of shared modules."""
    uses: Counter[int] = Counter()
    for module in root.modules():
        uses.update({id(parameter) for parameter in module.parameters(recurse=False)})
    attributes: dict[str, Any] = {}
    calls: Counter[str] = Counter()
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            attribute = operator.attrgetter(node.target)(root)
            node.target = node.target.removeprefix(f"{_PREFIX}.")
            attributes[node.target] = attribute
            calls[node.target] += 1
            if node.op == "get_attr":
                uses[id(attribute)] += 1
    shared = {
        name
        for name, module in attributes.items()
        if isinstance(module, nn.Module)
        and (
            (calls[name] > 1 and module.state_dict())
            or any(uses[id(parameter)] > 1 for parameter in module.parameters())
        )
    }
    return fx.GraphModule(attributes, graph), frozenset(shared)


def _read_results_of_writers(traced: TracedNetwork, run: _Recorder) -> None:
    """Make the readers of an overwritten tensor read the result of the operation that overwrites it.

    Raises:
        NotTraceable: another view of the tensor is read later, or a weight or buffer is overwritten.
    """
    nodes = list(traced.module.graph.nodes)
    order = {node: number for number, node in enumerate(nodes)}
    for node in nodes:
        target = _overwritten(node, traced)
        if target is None:
            continue
        value, before = run.values.get(node), run.values.get(target)
        if value is None or before is None or not value.is_tensor(before):
            raise NotTraceable(f"{_label(node)} overwrites {_label(target)} in another shape")
        for other in nodes[: order[node]]:
            earlier = run.values.get(other)
            if earlier is None or earlier.storage != value.storage:
                continue
            if other.op == "get_attr":
                raise NotTraceable(f"{_label(node)} overwrites {_label(other)}")
            later = [user for user in other.users if order[user] > order[node]]
            if later and not earlier.is_tensor(value):
                raise NotTraceable(f"{_label(node)} overwrites {_label(other)}, which is read again")
            for user in later:
                user.replace_input_with(other, node)


def _label(node: fx.Node) -> str:
    return str(node.target) if node.op in ("call_module", "get_attr") else node.name


def _overwritten(node: fx.Node, traced: TracedNetwork) -> fx.Node | None:
    """The tensor that the operation overwrites with its result, if any."""
    out = node.kwargs.get("out")
    if isinstance(out, fx.Node):
        return out
    if node.op == "call_module":
        writes = getattr(traced.layer(node), "inplace", False) is True
    elif node.op in ("call_function", "call_method"):
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        writes = name.endswith("_") and not name.endswith("__")
        writes = writes or node.kwargs.get("inplace") is True or node.target in _WRITING_OPERATORS
    else:
        return None
    return next(iter(node.all_input_nodes), None) if writes else None


_WRITING_OPERATORS: tuple[Callable[..., Any], ...] = (
    operator.iadd,
    operator.isub,
    operator.imul,
    operator.itruediv,
)


def _remove_identities(traced: TracedNetwork) -> None:
    for node in list(traced.module.graph.nodes):
        if node.op == "call_module":
            same = is_plain(traced.layer(node), _IDENTITIES)
        else:
            name = getattr(node.target, "__name__", "") if node.op == "call_function" else ""
            same = name in _DROPS and argument(node, "training", _DROPS[name], True) is False
        if same:
            node.replace_all_uses_with(node.all_input_nodes[0])
            traced.module.graph.erase_node(node)


def _sized(node: fx.Node) -> fx.Node | None:
    """The tensor whose shape the node reads, if any."""
    sizes = node.op == "call_method" and node.target == "size" and len(node.args) + len(node.kwargs) == 1
    reads = sizes or (node.target is getattr and node.args[1] == "shape")
    source = node.args[0] if reads else None
    return source if isinstance(source, fx.Node) else None


def reads_no_channels(node: fx.Node, traced: TracedNetwork) -> bool:
    """Whether the node reads no values, but sizes, a type or a device, which remain or are made constants."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or source not in traced.shapes or node in traced.shapes:
        return False
    dims = len(traced.shapes[source])
    if _sized(node) is not None:
        return all(_reads_one_size(user, dims) for user in node.users)
    if node.op == "call_method":
        return node.target in ("size", "dim", "ndimension", "is_floating_point", "get_device")
    return node.target is getattr and node.args[1] in ("ndim", "device", "dtype", "is_cuda")


def _reads_one_size(node: fx.Node, dims: int) -> bool:
    """Whether the node reads one size of a shape, or several without the number of channels."""
    if node.target is not operator.getitem:
        return False
    index = node.args[1]
    if isinstance(index, slice):
        try:
            return 1 not in range(dims)[index]
        except TypeError:  # a bound that is computed
            return False
    return isinstance(index, int)


def fix_number_of_channels(source: fx.Node, traced: TracedNetwork) -> None:
    """Replace `x.size(1)` and `x.shape[1]` of a tensor by the number of channels."""
    shape = traced.shapes[source]
    for node in list(source.users):
        if node.op == "call_method" and node.target == "size" and _sized(node) is None:
            if position(argument(node, "dim", 1, None), len(shape)) == 1:
                _replace_by_number(node, shape[1])
        elif _sized(node) is source:
            for user in list(node.users):
                if user.target is operator.getitem and position(user.args[1], len(shape)) == 1:
                    _replace_by_number(user, shape[1])


def _replace_by_number(node: fx.Node, number: int) -> None:
    def replaced(value: fx.Node) -> Any:
        return number if value is node else value

    for user in list(node.users):
        user.args = fx.map_arg(user.args, replaced)
        user.kwargs = fx.map_arg(user.kwargs, replaced)


def _fold_norms(traced: TracedNetwork) -> None:
    """Fold each batch norm into the layer before it, if nothing else reads that layer."""
    for node in list(traced.module.graph.nodes):
        norm, source = traced.layer(node), next(iter(node.all_input_nodes), None)
        if source is None or not is_plain(norm, NORMS) or len(source.users) > 1:
            continue
        layer = traced.layer(source)
        if {node.target, source.target} & traced.shared:
            continue
        if not is_plain(layer, LAYER_TYPES):
            continue
        if isinstance(layer, nn.Linear) and len(traced.shapes[source]) != 2:
            continue
        folded = fold_norm(layer, norm)
        if folded is None:
            continue
        replace_module(traced.module, str(source.target), folded)
        node.replace_all_uses_with(source)
        traced.module.graph.erase_node(node)
    traced.module.delete_all_unused_submodules()
