"""Operations on planar maps: the form of a network between its graph in torch and a program of the engine.

A map is one channel of one size; maps have numbers. A tensor (images, channels, height, width) is an array of
such numbers, so that concatenating, splitting and shuffling channels moves no data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float32]
Size: TypeAlias = tuple[int, int]


class Kind(IntEnum):
    """Kinds of operations; see kernels/program.h."""

    IMPORT, EXPORT, SUM, DEPTHWISE, POOL, MEAN, AFFINE, COMBINE, PLACE, LINEAR = range(10)


class Activation(IntEnum):
    """Function of each pixel that is written."""

    NONE, RELU, RELU6, HARDSWISH, HARDSIGMOID, SILU, SIGMOID = range(7)


@dataclass(frozen=True)
class Edges:
    """Weights of a sum other than zero, in the order of their targets.

    Attributes:
        targets: index of each edge's target.
        sources: its map.
        rows, columns: of the pixel that it reads, relative to the target's pixel.
        weights: its weight.
    """

    targets: Numbers
    sources: Numbers
    rows: Numbers
    columns: Numbers
    weights: Floats

    def __len__(self) -> int:
        return len(self.weights)


@dataclass(frozen=True)
class Placement:
    """First pixel (row, column) and step of the pixels that are read and of those that are written."""

    source: Size = (0, 0)
    source_step: int = 1
    target: Size = (0, 0)
    target_step: int = 1

    def covers(self, size: Size, target_size: Size) -> bool:
        """Whether every pixel of the target is written, by maps of `size`."""
        return (self.target, self.target_step) == ((0, 0), 1) and all(
            -(-(length - first) // self.source_step) >= target_length
            for length, first, target_length in zip(size, self.source, target_size, strict=True)
        )


@dataclass(frozen=True)
class Filters:
    """A filter for each map: weights (maps, size, size), biases (maps)."""

    weights: Floats
    biases: Floats
    stride: int
    activation: Activation


@dataclass(eq=False)
class Operation:
    """One operation.

    Attributes:
        kind: of the operation; the attributes below that it does not use are empty.
        size, target_size: of the maps that are read and written.
        sources, targets: maps that are read and written. A sum's sources are in its edges.
        others: maps that are added to a sum, or combined with the sources.
        weights, biases: of filters (maps, size, size), affine functions (maps), linear layers (targets,
            sources).
        clears: whether pixels that a placement does not write are set to zero first.
        bias_maps: of sums, (targets, height, width), added to the biases.
        filters: of the results of a sum, which are not stored.
        name: of the layer or operation in the network, for reports.
    """

    kind: Kind
    size: Size
    target_size: Size
    sources: Numbers
    targets: Numbers
    name: str
    activation: Activation = Activation.NONE
    others: Numbers | None = None
    other_size: Size = (0, 0)
    edges: Edges | None = None
    weights: Floats | None = None
    biases: Floats | None = None
    bias_maps: Floats | None = None
    multiplies: bool = False
    tensor: int = 0
    channels: int = 0
    channel_indices: Numbers | None = None
    window: int = 0
    stride: int = 1
    padding: int = 0
    pooling: int = 0
    placement: Placement = field(default_factory=Placement)
    clears: bool = False
    filters: Filters | None = None

    def reads(self) -> Numbers:
        """All maps that it reads, each once."""
        arrays = [self.sources]
        if self.edges is not None:
            arrays.append(self.edges.sources)
        if self.others is not None:
            arrays.append(self.others)
        return np.unique(np.concatenate(arrays))

    @property
    def pad(self) -> int:
        """Zeros that it reads around a map."""
        if self.kind == Kind.DEPTHWISE:
            return self.window // 2
        pad = 0 if self.filters is None else self.filters.weights.shape[1] // 2
        if self.edges is None or not len(self.edges):
            return pad
        return int(max(pad, np.abs(self.edges.rows).max(), np.abs(self.edges.columns).max()))


@dataclass(frozen=True)
class Maps:
    """A tensor (images, channels, height, width), or (images, channels) with a size of (1, 1).

    Attributes:
        numbers: of the maps; with several dimensions while the network views its channels so.
        size: of each map.
    """

    numbers: Numbers
    size: Size

    @property
    def channels(self) -> int:
        """Number of maps."""
        return self.numbers.size


class Operations:
    """Operations in the order in which they are run; methods append them and return what they write."""

    def __init__(self) -> None:
        self.list: list[Operation] = []
        self.num_maps = 0
        self.num_inputs = self.num_outputs = 0

    def input(self, channels: int, size: Size) -> Maps:
        """A tensor of the caller."""
        maps = self._new(channels, size)
        self._append(
            Kind.IMPORT, "input", size, maps, np.arange(0), tensor=self.num_inputs, channels=channels,
            channel_indices=np.arange(channels),
        )  # fmt: skip
        self.num_inputs += 1
        return maps

    def output(self, maps: Maps) -> int:
        """Copy maps to a tensor of the caller; returns its number."""
        numbers = maps.numbers.reshape(-1)
        self.list.append(
            Operation(
                Kind.EXPORT, maps.size, maps.size, numbers, np.arange(0), "output", tensor=self.num_outputs,
                channels=len(numbers), channel_indices=np.arange(len(numbers)),
            )
        )  # fmt: skip
        self.num_outputs += 1
        return self.num_outputs - 1

    def convolution(
        self,
        maps: Maps,
        weight: Floats,
        bias: Floats | None,
        stride: Size = (1, 1),
        padding: Size = (0, 0),
        dilation: Size = (1, 1),
        groups: int = 1,
        name: str = "convolution",
    ) -> Maps:
        """A convolution of weights (targets, sources of a group, height, width), padded with zeros."""
        targets, _, *window = weight.shape
        out = tuple(
            (length + 2 * pad - step * (taps - 1) - 1) // jump + 1
            for length, pad, step, taps, jump in zip(
                maps.size, padding, dilation, window, stride, strict=True
            )
        )
        biases = np.zeros(targets, np.float32) if bias is None else bias
        if maps.size == (1, 1) and window == [1, 1] and groups == 1 and out == (1, 1):
            return self.linear(maps, weight[:, :, 0, 0], biases, name)
        if _is_depthwise(maps, weight, stride, padding, dilation, groups):
            result = self._new(targets, (out[0], out[1]))
            self._append(
                Kind.DEPTHWISE, name, maps.size, result, maps.numbers.reshape(-1), weights=weight[:, 0],
                biases=biases, window=window[0], stride=stride[0],
            )  # fmt: skip
            return result
        return self._sum(maps, weight, biases, stride, padding, dilation, groups, (out[0], out[1]), name)

    def _sum(
        self,
        maps: Maps,
        weight: Floats,
        biases: Floats,
        stride: Size,
        padding: Size,
        dilation: Size,
        groups: int,
        out: Size,
        name: str,
    ) -> Maps:
        """A convolution as a sum over edges; one with a stride reads maps of every `stride`-th pixel."""
        num_targets, per_group, _, _ = weight.shape
        targets, sources, taps_y, taps_x = weight.nonzero()
        values = weight[targets, sources, taps_y, taps_x]
        channels = sources + targets // (num_targets // groups) * per_group
        rows, columns = (
            taps * step - pad for taps, step, pad in zip((taps_y, taps_x), dilation, padding, strict=True)
        )
        size, numbers = maps.size, maps.numbers.reshape(-1)[channels]
        if stride != (1, 1):
            size, numbers, rows, columns = self._phases(maps, channels, rows, columns, stride, name)
        work = (max(size[0], out[0]), max(size[1], out[1]))
        if work != size:
            used, positions = np.unique(numbers, return_inverse=True)
            numbers = self.place(Maps(used, size), Placement(), work, name).numbers[positions]
        result = self._new(num_targets, work)
        edges = Edges(targets, numbers, rows, columns, values.astype(np.float32))
        self._append(Kind.SUM, name, work, result, np.arange(0), edges=edges, biases=biases)
        return result if work == out else self.place(result, Placement(), out, name)

    def _phases(
        self, maps: Maps, channels: Numbers, rows: Numbers, columns: Numbers, stride: Size, name: str
    ) -> tuple[Size, Numbers, Numbers, Numbers]:
        """The maps of every `stride`-th pixel from each first pixel that edges read, and their edges."""
        size = (-(-maps.size[0] // stride[0]), -(-maps.size[1] // stride[1]))
        flat, numbers = maps.numbers.reshape(-1), np.empty(len(channels), np.int64)
        if stride[0] != stride[1]:
            raise ValueError("strides of rows and columns differ")
        first = (rows % stride[0]) * stride[1] + columns % stride[1]
        for phase in np.unique(first):
            edges = first == phase
            used, positions = np.unique(channels[edges], return_inverse=True)
            placement = Placement((int(phase) // stride[1], int(phase) % stride[1]), stride[0])
            placed = self.place(Maps(flat[used], maps.size), placement, size, name)
            numbers[edges] = placed.numbers[positions]
        return size, numbers, rows // stride[0], columns // stride[1]

    def linear(self, maps: Maps, weight: Floats, bias: Floats | None, name: str = "linear") -> Maps:
        """A matrix (targets, sources) times the single pixels of maps."""
        result = self._new(len(weight), (1, 1))
        biases = np.zeros(len(weight), np.float32) if bias is None else bias
        self._append(
            Kind.LINEAR, name, (1, 1), result, maps.numbers.reshape(-1), weights=weight, biases=biases
        )
        return result

    def pool(
        self, maps: Maps, window: int, stride: int, padding: int, pooling: int, out: Size, name: str
    ) -> Maps:
        """Maximum (`pooling` 0) or mean of windows, of their pixels (1) or of those and the padding (2)."""
        result = self._new(maps.channels, out, maps)
        self._append(
            Kind.POOL, name, maps.size, result, maps.numbers.reshape(-1), window=window, stride=stride,
            padding=padding, pooling=pooling,
        )  # fmt: skip
        return result

    def mean(self, maps: Maps, name: str) -> Maps:
        """The mean of each map."""
        result = self._new(maps.channels, (1, 1), maps)
        self._append(Kind.MEAN, name, maps.size, result, maps.numbers.reshape(-1))
        return result

    def affine(
        self, maps: Maps, scale: Floats, shift: Floats, name: str, activation: Activation = Activation.NONE
    ) -> Maps:
        """`scale · map + shift`, by map, then the activation."""
        result = self._new(maps.channels, maps.size, maps)
        self._append(
            Kind.AFFINE, name, maps.size, result, maps.numbers.reshape(-1), weights=scale, biases=shift,
            activation=activation,
        )  # fmt: skip
        return result

    def activation(self, maps: Maps, activation: Activation, name: str) -> Maps:
        """The activation of every pixel."""
        ones = np.ones(maps.channels, np.float32)
        return self.affine(maps, ones, 0 * ones, name, activation)

    def combine(self, one: Maps, other: Maps, multiplies: bool, name: str) -> Maps:
        """Sum or product of maps; `other` may have single pixels."""
        result = self._new(one.channels, one.size, one)
        self._append(
            Kind.COMBINE, name, one.size, result, one.numbers.reshape(-1), others=other.numbers.reshape(-1),
            other_size=other.size, multiplies=multiplies,
        )  # fmt: skip
        return result

    def place(self, maps: Maps, placement: Placement, size: Size, name: str) -> Maps:
        """Some pixels of each map, in new maps of another size; their other pixels are zero."""
        result = self._new(maps.channels, size, maps)
        self.place_in(maps, result, placement, name)
        self.list[-1].clears = not placement.covers(maps.size, size)
        return result

    def place_in(self, maps: Maps, result: Maps, placement: Placement, name: str) -> None:
        """The same into maps that another operation has written, too."""
        self._append(Kind.PLACE, name, maps.size, result, maps.numbers.reshape(-1), placement=placement)

    def _new(self, count: int, size: Size, like: Maps | None = None) -> Maps:
        numbers = np.arange(self.num_maps, self.num_maps + count)
        self.num_maps += count
        return Maps(numbers if like is None else numbers.reshape(like.numbers.shape), size)

    def _append(
        self, kind: Kind, name: str, size: Size, result: Maps, sources: Numbers, **settings: object
    ) -> None:
        targets = result.numbers.reshape(-1)
        self.list.append(Operation(kind, size, result.size, sources, targets, name, **settings))  # type: ignore[arg-type]


def _is_depthwise(
    maps: Maps, weight: Floats, stride: Size, padding: Size, dilation: Size, groups: int
) -> bool:
    """Whether the engine has a kernel for this convolution of single maps."""
    window: Sequence[int] = weight.shape[2:]
    square = window[0] == window[1] and window[0] in (3, 5, 7) and stride[0] == stride[1]
    same = padding == (window[0] // 2, window[0] // 2) and dilation == (1, 1) and stride[0] in (1, 2)
    return groups == maps.channels == len(weight) and weight.shape[1] == 1 and square and same
