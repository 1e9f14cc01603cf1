"""Recognition of operations that act on channels separately, by function, method or module of torch."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from wirings.channel_operations import (
    ChannelWise,
    Concatenation,
    Depthwise,
    Layer,
    Operation,
    Pointwise,
    Reshape,
    all_equal,
)
from wirings.channel_trace import TracedNetwork, argument, is_plain, position
from wirings.folding import NORMS
from wirings.layers import CONVOLUTIONS, TRANSPOSED


def recognize(node: fx.Node, traced: TracedNetwork, in_use: Tensor | None) -> Operation | None:
    """The operation of a node on channels, or None if it is not known.

    Args:
        node: of the graph.
        traced: the network.
        in_use: boolean, which entries of the layer's weight are in use; None: all.
    """
    sources = [source for source in node.all_input_nodes if source in traced.shapes]
    if not sources or node not in traced.shapes:
        return None
    if node.op == "call_module" and node.target in traced.shared:
        return None
    shapes = [traced.shapes[source] for source in sources]
    after = traced.shapes[node]
    if len(after) < 2 or any(len(shape) < 2 for shape in shapes):
        return None
    module = traced.layer(node)
    if module is not None and len(sources) == 1:
        layer = _recognize_layer(node, sources[0], module, shapes[0], in_use)
        if layer is not None:
            return layer
    name = _name(node, traced)
    if name in ("cat", "concat", "concatenate"):
        return _recognize_concatenation(node, sources, shapes)
    if name in _RESHAPES and len(sources) == 1 and _keeps_order(node, shapes[0], after):
        return Reshape(node, sources[0], shapes[0], after)
    computed = len(sources) != len(node.all_input_nodes)
    if name in _POINTWISE and len(sources) <= 2 and not computed and _is_total(node, name, sources):
        aligned = all(len(shape) == len(after) and shape[1] == after[1] for shape in shapes)
        product = len(sources) == 2 and name in ("mul", "imul", "multiply")
        return Pointwise(node, sources, traced, product) if aligned else None
    if (
        name == "expand_as"
        and len(sources) == 2
        and shapes[0][1] == after[1]
        and len(shapes[0]) == len(after)
    ):
        return ChannelWise(node, sources, "all")
    if len(sources) == 1 and shapes[0][1] == after[1]:
        keeps = _preserved_constants(node, name, module, len(shapes[0]))
        return ChannelWise(node, sources, keeps) if keeps else None
    return None


_RESHAPES = frozenset(("flatten", "view", "reshape", "squeeze", "unsqueeze", "getitem", "Flatten"))
_POINTWISE_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(
        nn.Hardswish,
        nn.Hardsigmoid,
        nn.Hardtanh,
        nn.Sigmoid,
        nn.Tanh,
        nn.Softplus,
        nn.Softsign,
        nn.LogSigmoid,
    ),
)
# Functions that are finite for all numbers: an unneeded channel that remains may have any value.
_POINTWISE = frozenset(
    (
        *("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish"),
        *(
            "hardsigmoid",
            "hardtanh",
            "sigmoid",
            "tanh",
            "softplus",
            "softsign",
            "logsigmoid",
            "clamp",
            "clip",
        ),
        *("clamp_min", "clamp_max", "neg", "abs", "contiguous", "clone", "detach", "maximum", "minimum"),
        *("add", "sub", "mul", "div", "multiply", "subtract", "truediv", "iadd", "isub", "imul", "itruediv"),
        *(module.__name__ for module in (*_POINTWISE_MODULES, *NORMS)),
    )
)
_MAX_POOLS = ("max_pool1d", "max_pool2d", "max_pool3d", "MaxPool1d", "MaxPool2d", "MaxPool3d")
_AVERAGE_POOLS = ("avg_pool1d", "avg_pool2d", "avg_pool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d")
_WHOLE_POOLS = frozenset(
    f"{kind}{dims}d"
    for kind in ("adaptive_avg_pool", "adaptive_max_pool", "AdaptiveAvgPool", "AdaptiveMaxPool")
    for dims in (1, 2, 3)
)


@cache
def _known_functions() -> dict[Any, str]:
    """Names by function of torch; a function of the same name elsewhere is not recognized."""
    names = (*_POINTWISE, *_RESHAPES, *_MAX_POOLS, *_AVERAGE_POOLS, *_WHOLE_POOLS)
    names += ("cat", "concat", "concatenate", "mean", "amax", "amin", "interpolate", "pad")
    name_of = {}
    for name in names:
        for module in (torch, F, operator):
            for spelling in (name, f"{name}_"):
                if hasattr(module, spelling):
                    name_of[getattr(module, spelling)] = name
    return name_of


def _name(node: fx.Node, traced: TracedNetwork) -> str | None:
    """Name of the function or method, or of the class of a module of torch."""
    if node.op == "call_function":
        return _known_functions().get(node.target)
    if node.op == "call_method":
        return str(node.target).removesuffix("_")
    module = traced.layer(node)
    if module is None or len(node.args) != 1 or node.kwargs:
        return None
    if is_plain(module, NORMS) and module.running_mean is None:  # it depends on the batch
        return None
    plain = (*_POINTWISE_MODULES, *NORMS, nn.Flatten, nn.Upsample)
    pools = tuple(
        getattr(nn, name) for name in (*_MAX_POOLS, *_AVERAGE_POOLS, *_WHOLE_POOLS) if name[0].isupper()
    )
    return next((cls.__name__ for cls in (*plain, *pools) if is_plain(module, (cls,))), None)


def _recognize_layer(
    node: fx.Node, source: fx.Node, module: Any, shape: torch.Size, in_use: Tensor | None
) -> Operation | None:
    if is_plain(module, (nn.Linear,)):
        return Layer(node, source, module, in_use) if len(shape) == 2 else None
    if not is_plain(module, (*CONVOLUTIONS, *TRANSPOSED)):
        return None
    if len(node.args) != 1 or len(shape) != module.weight.dim():
        return None
    if module.groups == 1:
        return Layer(node, source, module, in_use)
    if module.groups == module.in_channels == module.out_channels:
        return Depthwise(node, source, module, in_use)
    return None


def _recognize_concatenation(
    node: fx.Node, sources: Sequence[fx.Node], shapes: Sequence[torch.Size]
) -> Operation | None:
    tensors = node.args[0] if node.args else node.kwargs.get("tensors")
    dim = position(argument(node, "dim", 1, 0), len(shapes[0]))
    if dim != 1 or not isinstance(tensors, (list, tuple)) or not all(tensor in sources for tensor in tensors):
        return None
    return Concatenation(node, tensors)


def _keeps_order(node: fx.Node, before: torch.Size, after: torch.Size) -> bool:
    """Whether the result has the same elements in the same order, channels or features in dimension 1."""
    if before[0] != after[0] or before.numel() != after.numel():
        return False
    if node.target is operator.getitem:
        index = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
        if not all(item is None or item is ... or isinstance(item, (int, slice)) for item in index):
            return False
    elif any(isinstance(value, torch.dtype) for value in (*node.args, *node.kwargs.values())):
        return False
    if len(after) == 2:
        return True
    added = len(before) == 2 and all(size == 1 for size in after[2:])
    return before[1] == after[1] and (len(after) == 3 or added)


def _is_total(node: fx.Node, name: str, sources: Sequence[fx.Node]) -> bool:
    """Whether the function is finite for all numbers, as `1 / x` is not."""
    if name not in ("div", "truediv", "itruediv"):
        return True
    divisor = argument(node, "other", 1, None)
    return isinstance(divisor, (int, float)) and divisor != 0


def _preserved_constants(node: fx.Node, name: str | None, module: nn.Module | None, dims: int) -> str | None:
    """Which constants an operation on each channel preserves; None: it is not such an operation."""

    def setting(key: str, index: int, default: Any) -> Any:
        return argument(node, key, index, default) if module is None else getattr(module, key, default)

    if name in (*_MAX_POOLS, *_AVERAGE_POOLS, *_WHOLE_POOLS) and int(name[-2]) + 2 != dims:
        return None  # an image without a batch, whose channels are in dimension 0
    if name in _MAX_POOLS:
        # A dilated window may be entirely in the padding.
        return "all" if all_equal(setting("dilation", 4, 1), 1) else "none"
    if name in _AVERAGE_POOLS:
        plain = all_equal(setting("padding", 3, 0), 0) and setting("divisor_override", 6, None) is None
        return "all" if plain else "zero"
    if name in _WHOLE_POOLS or name in ("interpolate", "Upsample"):
        return "all"
    if name == "getitem":
        index = node.args[1] if isinstance(node.args[1], tuple) else ()
        keeps_channels = len(index) > 2 and all(item == slice(None) for item in index[:2])
        is_plain_index = all(isinstance(item, (slice, int)) for item in index)
        return "all" if keeps_channels and is_plain_index else None
    if name == "pad":
        widths = argument(node, "pad", 1, ())
        constant = argument(node, "mode", 2, "constant") == "constant"
        return "zero" if constant and len(widths) // 2 <= dims - 2 else None
    if name in ("mean", "amax", "amin"):
        reduced = argument(node, "dim", 1, ())
        reduced = reduced if isinstance(reduced, (list, tuple)) else [reduced]
        positions = [position(dim, dims) for dim in reduced]
        return "all" if positions and all(dim is not None and dim > 1 for dim in positions) else None
    return None
