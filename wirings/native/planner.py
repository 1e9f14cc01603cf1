"""The program of operations: where each map is stored and when, and the blocks of each sum."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np

from wirings.native.fusing import fused
from wirings.native.operations import Edges, Floats, Kind, Numbers, Operation, Size
from wirings.native.program import Geometry, Program, Step

SMALL_MAP = 8 * 16
"""Maps with fewer pixels are stored for all images of a group side by side, so that vectors are full."""
MAX_TARGETS = 4
"""Targets of a block."""
HEAD_TILE = 64
"""Targets of a dense linear layer are rounded up to a multiple of this."""
SPARSE_LINEAR_BELOW = 0.3
"""Density below which a linear layer is stored as edges."""
FIRST_CACHE = 32 * 1024
"""Bytes of sources that stay in the first cache."""
CACHE = 256 * 1024
"""Bytes of sources that stay in the second cache while all targets are summed."""
LINE = 16
"""Floats of a cache line, and of the widest vector."""
MIN_STRIP = 8
"""Lines of a strip, at least: each strip reads all edges."""
AHEAD = 12
"""Edges whose sources are fetched in advance: the processor cannot foresee which they are."""


def plan(operations: Sequence[Operation], bf16: bool = False) -> Program:
    """The program of operations, which are changed.

    Args:
        bf16: store the weights of dense linear layers as bfloat16.
    """
    return _Planner(fused(list(operations)), bf16).program()


@dataclass(frozen=True)
class _Place:
    """Geometry and slot of a map."""

    geometry: int
    slot: int


class _Arrays:
    """Concatenated arrays; adding one returns the index of its first element."""

    def __init__(self) -> None:
        self.integers: list[np.ndarray] = [np.empty(0, np.int32)]
        self.values: list[np.ndarray] = [np.empty(0, np.float32)]
        self._sizes = [0, 0]

    def ints(self, array: np.ndarray) -> int:
        self.integers.append(np.ascontiguousarray(array.reshape(-1), np.int32))
        self._sizes[0] += array.size
        return self._sizes[0] - array.size

    def floats(self, array: np.ndarray) -> int:
        self.values.append(np.ascontiguousarray(array.reshape(-1), np.float32))
        self._sizes[1] += array.size
        return self._sizes[1] - array.size


class _Planner:
    def __init__(self, operations: list[Operation], bf16: bool) -> None:
        self.operations, self.bf16, self.arrays = operations, bf16, _Arrays()
        self.pads: dict[Size, int] = defaultdict(int)
        for operation in operations:
            self.pads[operation.size] = max(self.pads[operation.size], operation.pad)
        self.grouped = self._grouped(self._steps_by_image())
        self.sizes: dict[int, Size] = {}
        self.last_use: dict[int, int] = {}  # several placements may write one map
        for number, operation in enumerate(operations):
            self.sizes.update(dict.fromkeys(operation.targets.tolist(), operation.target_size))
            used = [*operation.targets.tolist(), *operation.reads().tolist()]
            self.last_use.update(dict.fromkeys(used, number))
        self.geometries: dict[tuple[Size, bool], int] = {}
        self.num_slots: list[int] = []
        self.free: list[list[int]] = []
        self.places: dict[int, _Place] = {}

    def program(self) -> Program:
        steps = []
        for number, operation in enumerate(self.operations):
            for target in operation.targets.tolist():
                if target not in self.places:
                    self.places[target] = self._allocate(target)
            steps.append(self._step(operation))
            for used in {*operation.targets.tolist(), *operation.reads().tolist()}:
                if self.last_use[used] == number:
                    self._release(used)
        geometries = [
            Geometry(*size, self.pads[size], int(grouped), slots, *self._reaches(size))
            for (size, grouped), slots in zip(self.geometries, self.num_slots, strict=True)
        ]
        return Program(
            np.array([astuple(geometry) for geometry in geometries], np.int64).reshape(
                -1, len(fields(Geometry))
            ),
            np.array([astuple(step) for step in steps], np.int64),
            np.concatenate(self.arrays.integers),
            np.concatenate(self.arrays.values),
            tuple(operation.name for operation in self.operations),
        )

    def _reaches(self, size: Size) -> tuple[int, int]:
        """Floats that operations read behind the pixels of a map: see kernels/program.h."""
        pitch, sums, windows = size[1] + self.pads[size], 0, 0
        for operation in self.operations:
            if operation.size != size:
                continue
            if operation.edges is not None and len(operation.edges):
                distances = operation.edges.rows * pitch + operation.edges.columns
                sums = max(sums, int(distances.max()))
            if operation.kind == Kind.DEPTHWISE:
                width = (
                    operation.stride * (_rounded(operation.target_size[1]) + LINE)
                    if operation.stride > 1
                    else _rounded(size[1])
                )
                half = operation.window // 2
                windows = max(windows, half * pitch + width + operation.window)
        return sums, windows

    def _steps_by_image(self) -> int:
        """Number of operations that are run image by image: all up to the last that uses large maps.

        If one of them reads a map that a later one reads, too, all are: the map cannot be stored in both
        ways.
        """
        small = [
            all(height * width < SMALL_MAP for height, width in (operation.size, operation.target_size))
            for operation in self.operations
        ]
        count = len(small) - next((n for n, one in enumerate(reversed(small)) if not one), len(small))
        count = max(
            count, max((n + 1 for n, o in enumerate(self.operations) if o.kind == Kind.IMPORT), default=0)
        )
        grouped = self._grouped(count)
        if any(not grouped.isdisjoint(operation.reads().tolist()) for operation in self.operations[:count]):
            return len(small)
        return count

    def _grouped(self, by_image: int) -> set[int]:
        """The maps of all operations of which a step of groups reads a map."""
        reads = [operation.reads().tolist() for operation in self.operations[by_image:]]
        read = {number for numbers in reads for number in numbers}
        written = [operation.targets.tolist() for operation in self.operations]
        grouped = [
            numbers
            for index, numbers in enumerate(written)
            if index >= by_image or not read.isdisjoint(numbers)
        ]
        return {number for numbers in grouped for number in numbers}

    def _allocate(self, number: int) -> _Place:
        geometry = self._geometry(self.sizes[number], number in self.grouped)
        if self.free[geometry]:
            return _Place(geometry, heapq.heappop(self.free[geometry]))
        self.num_slots[geometry] += 1
        return _Place(geometry, self.num_slots[geometry] - 1)

    def _geometry(self, size: Size, grouped: bool) -> int:
        key = (size, grouped)
        if key not in self.geometries:
            self.geometries[key] = len(self.geometries)
            self.num_slots.append(0)
            self.free.append([])
        return self.geometries[key]

    def _release(self, number: int) -> None:
        place = self.places[number]
        heapq.heappush(self.free[place.geometry], place.slot)

    def _slots(self, numbers: Numbers) -> tuple[int, Numbers]:
        """Geometry and slots of maps, which have one geometry."""
        places = [self.places[number] for number in numbers.tolist()]
        (geometry,) = {place.geometry for place in places} or {0}
        return geometry, np.array([place.slot for place in places], np.int64)

    def _step(self, operation: Operation) -> Step:
        step = Step(kind=operation.kind, count=len(operation.targets), activation=operation.activation)
        reads = operation.edges.sources if operation.edges is not None else operation.sources
        step.to_geometry, targets = self._slots(operation.targets)
        step.from_geometry, sources = self._slots(reads)
        step.targets = self.arrays.ints(targets)
        if operation.kind != Kind.SUM:
            step.sources = self.arrays.ints(sources)
        if not len(reads):
            grouped = bool(len(operation.targets)) and int(operation.targets[0]) in self.grouped
            step.from_geometry = self._geometry(operation.size, grouped)
        if not len(operation.targets):
            step.to_geometry = step.from_geometry
        if operation.others is not None:
            step.other_geometry, others = self._slots(operation.others)
            step.others = self.arrays.ints(others)
        if operation.weights is not None and operation.kind != Kind.LINEAR:
            step.weights = self.arrays.floats(operation.weights)
        if operation.biases is not None and operation.kind != Kind.LINEAR:
            step.biases = self.arrays.floats(operation.biases)
        if operation.bias_maps is not None:
            step.bias_maps = self.arrays.floats(operation.bias_maps)
        if operation.channel_indices is not None:
            step.count = len(operation.channel_indices)
            step.edges = self.arrays.ints(operation.channel_indices)
        step.inputs, step.channels = operation.tensor, operation.channels
        if operation.kind == Kind.POOL:
            step.operation = operation.pooling
        else:
            step.operation = int(operation.multiplies or operation.clears)
        step.size, step.stride, step.padding = operation.window, operation.stride, operation.padding
        if operation.filters is not None:
            filters = operation.filters
            step.size, step.stride = filters.weights.shape[1], filters.stride
            step.filters = self.arrays.floats(filters.weights)
            step.filter_biases = self.arrays.floats(filters.biases)
            step.filter_activation = filters.activation
        place = operation.placement
        step.row, step.column, step.step = *place.source, place.source_step
        step.to_row, step.to_column, step.to_step = *place.target, place.target_step
        if operation.kind == Kind.SUM:
            assert operation.edges is not None
            self._add_sum(step, operation.edges, sources)
            step.strip, step.ahead = _strip(operation.edges, operation.size)
        if operation.kind == Kind.LINEAR:
            assert operation.weights is not None and operation.biases is not None
            self._add_linear(step, operation.weights, operation.biases)
        return step

    def _add_sum(self, step: Step, edges: Edges, sources: Numbers) -> None:
        """The blocks and the edges of a sum; `sources`: slots of the edges' sources."""
        order, blocks, weights = blocks_of(edges, step.count)
        taps = (edges.rows + 128) * 256 + edges.columns + 128
        step.number, step.num_edges, step.num_weights = len(blocks), len(order), len(weights)
        step.blocks = self.arrays.ints(blocks)
        step.edges = self.arrays.ints(sources[order])
        step.taps = self.arrays.ints(taps[order])
        step.weights = self.arrays.floats(weights)

    def _add_linear(self, step: Step, weights: Floats, biases: Floats) -> None:
        targets, step.inputs = weights.shape
        if np.count_nonzero(weights) < SPARSE_LINEAR_BELOW * weights.size:
            rows, columns = weights.nonzero()
            starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=targets))])
            step.starts, step.edges = self.arrays.ints(starts), self.arrays.ints(columns)
            step.weights, step.biases = self.arrays.floats(weights[rows, columns]), self.arrays.floats(biases)
            return
        step.columns = -(-targets // HEAD_TILE) * HEAD_TILE
        padding = step.columns - targets
        padded = np.pad(weights, ((0, padding), (0, 0)))
        tiles = padded.reshape(step.columns // HEAD_TILE, HEAD_TILE, step.inputs).transpose(0, 2, 1)
        if self.bf16:
            step.halves = self.arrays.ints(_as_bfloat16(tiles))
        else:
            step.weights = self.arrays.floats(tiles)
        step.biases = self.arrays.floats(np.pad(biases, (0, padding)))


def blocks_of(edges: Edges, num_targets: int) -> tuple[Numbers, Numbers, Floats]:
    """Blocks of targets that share their sources, where targets have most of them, else of one target.

    Returns:
        Index of each block's edges; (blocks, 5) as in kernels/program.h; weights.
    """
    keys = _keys(edges)
    places, positions = np.unique(keys, return_index=True)
    columns = np.searchsorted(places, keys)
    starts = np.searchsorted(edges.targets, np.arange(num_targets + 1))
    order: list[Numbers] = []
    blocks: list[tuple[int, int, int, int, int]] = []
    weights: list[Floats] = []
    num_edges = num_weights = 0
    shared: dict[bytes, tuple[int, int]] = {}
    for first in range(0, num_targets, MAX_TARGETS):
        last = min(first + MAX_TARGETS, num_targets)
        own = slice(starts[first], starts[last])
        used = np.unique(columns[own])
        total = int(starts[last] - starts[first])
        if last - first > 1 and total > _share_of(last - first) * len(used) * (last - first):
            matrix = np.zeros((len(used), last - first), np.float32)
            matrix[np.searchsorted(used, columns[own]), edges.targets[own] - first] = edges.weights[own]
            key = used.tobytes()
            if key not in shared:
                shared[key] = (num_edges, len(used))
                order.append(positions[used])
                num_edges += len(used)
            blocks.append((first, last - first, *shared[key], num_weights))
            weights.append(matrix.reshape(-1))
            num_weights += matrix.size
            continue
        for target in range(first, last):
            indices = np.arange(starts[target], starts[target + 1])
            indices = indices[np.argsort(keys[indices], kind="stable")]
            blocks.append((target, 1, num_edges, len(indices), num_weights))
            order.append(indices)
            weights.append(edges.weights[indices])
            num_edges += len(indices)
            num_weights += len(indices)
    empty = np.empty(0, np.int64)
    return (
        np.concatenate([empty, *order]),
        np.array(blocks, np.int64).reshape(-1, 5),
        np.concatenate([np.empty(0, np.float32), *weights]),
    )


def _share_of(targets: int) -> float:
    """Fraction of a block's weights that must not be zero: an edge of 4 targets takes about as long as 1.4
    edges of one.
    """
    return 1.4 / targets


def _as_bfloat16(values: Floats) -> np.ndarray:
    """The values rounded to bfloat16, two in each int32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).reshape(-1)
    upper = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to the nearest; of two, the even one
    return upper.astype(np.uint16).view(np.int32)


def _keys(edges: Edges) -> Numbers:
    """A number for each pair of source and tap, ordered by the source."""
    return (edges.sources * 256 + edges.rows + 128) * 256 + edges.columns + 128


def _rounded(floats: int) -> int:
    return -(-floats // LINE) * LINE


def _strip(edges: Edges, size: Size) -> tuple[int, int]:
    """Lines of 16 pixels that are summed for all targets before the next ones, so that the sources stay in
    the second cache (0: all), and the number of edges whose sources are fetched in advance.
    """
    sources, pixels = len(np.unique(edges.sources)), size[0] * size[1]
    num_bytes = sources * pixels * 4
    ahead = 0 if num_bytes <= FIRST_CACHE else AHEAD
    return (0 if num_bytes <= CACHE else max(MIN_STRIP, CACHE // max(sources * 64, 1))), ahead
