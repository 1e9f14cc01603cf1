"""Operations of torch (aten) as operations of the native engine, one function each."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from wirings.native.operations import Activation, Floats, Maps, Operations, Placement, Size

_aten = torch.ops.aten


class NotSupported(Exception):
    """The engine has no operation for this; the message gives the reason."""


@dataclass(frozen=True)
class Value:
    """A tensor of the network as maps.

    Attributes:
        maps: its maps; `maps.numbers` has the dimensions of the channels.
        shape: of the tensor without the images: (channels, …, height, width), or (channels).
    """

    maps: Maps
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Context:
    """What handlers need besides their arguments.

    Attributes:
        num_images: the first dimension of the network's input.
    """

    operations: Operations
    node: fx.Node
    num_images: Any

    @property
    def name(self) -> str:
        """Path of the module that the node belongs to, or the node's name."""
        stack = self.node.meta.get("nn_module_stack") or {}
        paths = [path for path, _ in stack.values()]
        return str(paths[-1]).removeprefix("L['self'].") if paths and paths[-1] else self.node.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result without the images.

        Raises:
            NotSupported: its first dimension is not that of the images.
        """
        return shape_of_one(self.node.meta["val"], self.num_images)


def shape_of_one(value: Tensor, num_images: Any) -> tuple[int, ...]:
    """Shape without the first dimension, which must be that of the images."""
    shape = tuple(value.shape)
    if not shape or str(shape[0]) != str(num_images) or not all(isinstance(n, int) for n in shape[1:]):
        raise NotSupported(f"a tensor has the shape {shape}")
    return shape[1:]


def _maps(value: Any) -> Value:
    if not isinstance(value, Value):
        raise NotSupported("an argument is not a tensor of images")
    return value


def _plain(value: Any) -> Value:
    """A tensor (images, channels, height, width)."""
    maps = _maps(value)
    if len(maps.shape) != 3:
        raise NotSupported(f"a tensor has {len(maps.shape) + 1} dimensions")
    return maps


def _array(value: Any) -> Floats:
    if not isinstance(value, Tensor) or value.dtype != torch.float32:
        raise NotSupported("a weight is not a float32 tensor")
    return value.cpu().numpy()


def _pair(value: Any) -> Size:
    values = [value] if isinstance(value, int) else list(value)
    if not all(isinstance(one, int) for one in values):
        raise NotSupported("a size depends on the input")
    return (values[0], values[-1])


def _convolution(
    context: Context, x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Value:  # fmt: skip
    if isinstance(padding, str):
        raise NotSupported(f"the padding is {padding}")
    value, biases = _plain(x), None if bias is None else _array(bias)
    strides = _pair(stride)
    if strides[0] != strides[1]:
        raise NotSupported("strides of rows and columns differ")
    result = context.operations.convolution(
        value.maps, _array(weight), biases, strides, _pair(padding), _pair(dilation), groups, context.name
    )
    return Value(result, context.shape)


def _linear(context: Context, x: Any, weight: Any, bias: Any = None) -> Value:
    value = _maps(x)
    if len(value.shape) != 1:
        raise NotSupported(f"a linear layer reads a tensor of {len(value.shape) + 1} dimensions")
    biases = None if bias is None else _array(bias)
    return Value(context.operations.linear(value.maps, _array(weight), biases, context.name), context.shape)


def _activation(activation: Activation) -> Callable[..., Value]:
    def apply(context: Context, x: Any) -> Value:
        value = _maps(x)
        return Value(context.operations.activation(value.maps, activation, context.name), value.shape)

    return apply


def _hardtanh(context: Context, x: Any, low: float = -1.0, high: float = 1.0) -> Value:
    if (low, high) != (0, 6):
        raise NotSupported(f"hardtanh is limited to {low} and {high}")
    return _activation(Activation.RELU6)(context, x)


def _batch_norm(
    context: Context, x: Any, weight: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float
) -> tuple[Any, ...]:
    del momentum
    value = _plain(x)
    scale = (1.0 if weight is None else weight.double()) / (var.double() + eps).sqrt()
    shift = (0.0 if bias is None else bias.double()) - mean.double() * scale
    arrays = [tensor.float().cpu().numpy() for tensor in (scale, shift)]
    return (Value(context.operations.affine(value.maps, arrays[0], arrays[1], context.name), value.shape),)


def _getitem(context: Context, values: Any, index: int) -> Any:
    del context
    if not isinstance(values, (tuple, list)) or not index < len(values):
        raise NotSupported("a result of an operation is not known")
    return values[index]


def _combine(multiplies: bool) -> Callable[..., Value]:
    def apply(context: Context, x: Any, y: Any, alpha: float = 1) -> Value:
        if alpha != 1:
            raise NotSupported(f"alpha is {alpha}")
        if not isinstance(x, Value):
            x, y = y, x
        value = _maps(x)
        if isinstance(y, (int, float)):
            ones = np.ones(value.maps.channels, np.float32)
            scale, shift = (ones * y, ones * 0) if multiplies else (ones, ones * y)
            return Value(context.operations.affine(value.maps, scale, shift, context.name), value.shape)
        other = _maps(y)
        if other.maps.size != (1, 1) and value.maps.size == (1, 1):
            value, other = other, value
        same = value.maps.numbers.shape == other.maps.numbers.shape and len(value.shape) == len(other.shape)
        if not same or other.maps.size not in (value.maps.size, (1, 1)):
            raise NotSupported(f"tensors of {value.shape} and {other.shape} are combined")
        return Value(
            context.operations.combine(value.maps, other.maps, multiplies, context.name), value.shape
        )

    return apply


def _cat(context: Context, values: Sequence[Any], dim: int = 0) -> Value:
    parts = [_maps(value) for value in values]
    dims = len(parts[0].shape) + 1
    if dim % dims != 1 or any(part.maps.size != parts[0].maps.size for part in parts):
        raise NotSupported(f"tensors are concatenated in dimension {dim}")
    numbers = np.concatenate([part.maps.numbers for part in parts])
    return Value(Maps(numbers, parts[0].maps.size), context.shape)


def _split(context: Context, x: Any, sizes: Any, dim: int = 0) -> tuple[Value, ...]:
    del context
    value = _maps(x)
    if dim % (len(value.shape) + 1) != 1:
        raise NotSupported(f"a tensor is split in dimension {dim}")
    length = len(value.maps.numbers)
    if isinstance(sizes, int):
        sizes = [min(sizes, length - first) for first in range(0, length, sizes)]
    ends = np.cumsum(sizes)
    parts = np.split(value.maps.numbers, ends[:-1])
    return tuple(Value(Maps(part, value.maps.size), (len(part), *value.shape[1:])) for part in parts)


def _slice(
    context: Context, x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Value:
    value = _maps(x)
    if dim % (len(value.shape) + 1) != 1:
        raise NotSupported(f"a tensor is sliced in dimension {dim}")
    return Value(Maps(value.maps.numbers[start:end:step], value.maps.size), context.shape)


def _same(context: Context, x: Any, *_: Any, **__: Any) -> Value:
    value = _maps(x)
    if context.shape != value.shape or context.node.meta["val"].dtype != torch.float32:
        raise NotSupported("the type or shape changes")
    return value


def _view(context: Context, x: Any, *_: Any) -> Value:
    """Another view of the channels, or of the pixels as features."""
    value, shape = _maps(x), context.shape
    numbers, size = value.maps.numbers, value.maps.size
    if len(shape) == 1:
        return Value(_as_features(context, value), shape)
    if len(value.shape) == 1 and shape[-2:] == (1, 1):
        return Value(Maps(numbers.reshape(shape[:-2]), size), shape)
    if len(shape) < 3 or len(value.shape) < 3 or shape[-2:] != value.shape[-2:]:
        raise NotSupported(f"a tensor of {value.shape} is viewed as {shape}")
    return Value(Maps(numbers.reshape(shape[:-2]), size), shape)


def _as_features(context: Context, value: Value) -> Maps:
    """Each pixel as a map of its own, in the order of (channels, height, width)."""
    flat, (height, width) = Maps(value.maps.numbers.reshape(-1), value.maps.size), value.maps.size
    if (height, width) == (1, 1):
        return flat
    pixels = [
        context.operations.place(flat, Placement((row, column)), (1, 1), context.name).numbers
        for row in range(height)
        for column in range(width)
    ]
    return Maps(np.stack(pixels, 1).reshape(-1), (1, 1))


def _transpose(context: Context, x: Any, one: int, other: int) -> Value:
    value = _maps(x)
    dims = len(value.shape) + 1
    axes = (one % dims - 1, other % dims - 1)
    if min(axes) < 0 or max(axes) >= value.maps.numbers.ndim or len(value.shape) < 3:
        raise NotSupported("dimensions of pixels or images are exchanged")
    return Value(Maps(np.swapaxes(value.maps.numbers, *axes), value.maps.size), context.shape)


def _max_pool(
    context: Context, x: Any, window: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False,
) -> Value:  # fmt: skip
    del ceil_mode  # the shape of the result has it
    if _pair(dilation) != (1, 1):
        raise NotSupported("windows of a pool are dilated")
    return _pool(context, x, window, stride, padding, 0)


def _avg_pool(
    context: Context, x: Any, window: Any, stride: Any = (), padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor: int | None = None,
) -> Value:  # fmt: skip
    del ceil_mode
    if divisor is not None:
        raise NotSupported("a pool has a divisor")
    return _pool(context, x, window, stride, padding, 2 if count_include_pad else 1)


def _pool(context: Context, x: Any, window: Any, stride: Any, padding: Any, pooling: int) -> Value:
    value = _plain(x)
    steps = window if isinstance(stride, (list, tuple)) and not stride else stride
    pairs = [_pair(one) for one in (window, steps, padding)]
    if any(one != other for one, other in pairs):
        raise NotSupported("windows of a pool are not square")
    (length, _), (step, _), (pad, _) = pairs
    out = context.shape[1], context.shape[2]
    result = context.operations.pool(value.maps, length, step, pad, pooling, out, context.name)
    return Value(result, context.shape)


def _adaptive_pool(context: Context, x: Any, size: Any) -> Value:
    value = _plain(x)
    if _pair(size) == value.maps.size:
        return value
    if _pair(size) != (1, 1):
        raise NotSupported(f"maps of {value.maps.size} are pooled to {_pair(size)}")
    return Value(context.operations.mean(value.maps, context.name), context.shape)


def _mean(context: Context, x: Any, dims: Any, keepdim: bool = False) -> Value:
    del keepdim  # the shape of the result has it
    value = _plain(x)
    if sorted(dim % 4 for dim in dims) != [2, 3]:
        raise NotSupported(f"the mean of dimensions {dims}")
    return Value(context.operations.mean(value.maps, context.name), context.shape)


def _pad(context: Context, x: Any, pads: Sequence[int], number: float = 0) -> Value:
    value = _plain(x)
    if number != 0 or len(pads) != 4 or not all(isinstance(pad, int) for pad in pads):
        raise NotSupported("padding is not zero, or of other dimensions")
    left, right, top, bottom = pads
    del right, bottom
    source, target = (max(-top, 0), max(-left, 0)), (max(top, 0), max(left, 0))
    size: Size = context.shape[1], context.shape[2]
    placed = context.operations.place(value.maps, Placement(source, 1, target, 1), size, context.name)
    return Value(placed, context.shape)


def _conv_transpose(
    context: Context, x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Value:  # fmt: skip
    """A transposed convolution whose windows do not overlap: each tap is a convolution of single pixels."""
    value, weights = _plain(x), _array(weight)
    window = weights.shape[2]
    plain = weights.shape[2] == weights.shape[3] and _pair(stride) == (window, window) and groups == 1
    if not plain or _pair(padding) != (0, 0) or _pair(output_padding) != (0, 0):
        raise NotSupported("windows of a transposed convolution overlap or are padded")
    del dilation
    targets = weights.shape[1]
    biases = np.zeros(targets, np.float32) if bias is None else _array(bias)
    parts = [
        context.operations.convolution(
            value.maps, weights[:, :, row, column].T[:, :, None, None], biases, name=context.name
        )
        for row in range(window)
        for column in range(window)
    ]
    return Value(_interleaved(context, parts, window), context.shape)


def _upsample_nearest(context: Context, x: Any, *_: Any) -> Value:
    value, (height, width) = _plain(x), context.shape[1:]
    scale = height // value.maps.size[0]
    if (height, width) != (scale * value.maps.size[0], scale * value.maps.size[1]):
        raise NotSupported("maps are not upsampled by a whole number")
    return Value(_interleaved(context, [value.maps] * scale**2, scale), context.shape)


def _interleaved(context: Context, parts: Sequence[Maps], step: int) -> Maps:
    """Maps with part `step · row + column` in every `step`-th pixel from (row, column) on."""
    size = (context.shape[1], context.shape[2])
    result = context.operations.place(parts[0], Placement(target_step=step), size, context.name)
    for number, part in enumerate(parts[1:], 1):
        placement = Placement(target=divmod(number, step), target_step=step)
        context.operations.place_in(part, result, placement, context.name)
    return result


HANDLERS: dict[Any, Callable[..., Any]] = {
    _aten.conv2d.default: _convolution,
    _aten.linear.default: _linear,
    _aten.relu.default: _activation(Activation.RELU),
    _aten.hardtanh.default: _hardtanh,
    _aten.relu6.default: _activation(Activation.RELU6),
    _aten.hardswish.default: _activation(Activation.HARDSWISH),
    _aten.hardsigmoid.default: _activation(Activation.HARDSIGMOID),
    _aten.silu.default: _activation(Activation.SILU),
    _aten.sigmoid.default: _activation(Activation.SIGMOID),
    _aten._native_batch_norm_legit_no_training.default: _batch_norm,
    operator.getitem: _getitem,
    _aten.add.Tensor: _combine(multiplies=False),
    _aten.mul.Tensor: _combine(multiplies=True),
    _aten.cat.default: _cat,
    _aten.split.Tensor: _split,
    _aten.split_with_sizes.default: _split,
    _aten.slice.Tensor: _slice,
    _aten.view.default: _view,
    _aten.reshape.default: _view,
    _aten._unsafe_view.default: _view,
    _aten.flatten.using_ints: _view,
    _aten.squeeze.dims: _view,
    _aten.unsqueeze.default: _view,
    _aten.transpose.int: _transpose,
    _aten.clone.default: _same,
    _aten.alias.default: _same,
    _aten.dropout.default: _same,
    _aten._to_copy.default: _same,
    _aten.max_pool2d.default: _max_pool,
    _aten.avg_pool2d.default: _avg_pool,
    _aten.adaptive_avg_pool2d.default: _adaptive_pool,
    _aten.mean.dim: _mean,
    _aten.constant_pad_nd.default: _pad,
    _aten.conv_transpose2d.input: _conv_transpose,
    _aten.upsample_nearest2d.vec: _upsample_nearest,
    _aten.upsample_nearest2d.default: _upsample_nearest,
}
"""By operation: functions of a Context and the arguments. They return a Value, or a tuple of them."""
