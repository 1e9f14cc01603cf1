"""Programs of the native engine, and their `.wiring` files; kernels/program.h explains all fields."""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

VERSION = 1
"""Version of the files; a library reads one version."""
MAGIC = b"wirings\n"


@dataclass(frozen=True)
class Geometry:
    """Maps of one size."""

    height: int
    width: int
    pad: int
    grouped: int
    slots: int
    reach: int
    row_reach: int


@dataclass
class Step:
    """One step."""

    kind: int
    from_geometry: int = 0
    to_geometry: int = 0
    count: int = 0
    sources: int = -1
    targets: int = -1
    activation: int = 0
    weights: int = -1
    biases: int = -1
    bias_maps: int = -1
    other_geometry: int = 0
    others: int = -1
    operation: int = 0
    inputs: int = 0
    channels: int = 0
    blocks: int = -1
    number: int = 0
    edges: int = -1
    taps: int = -1
    num_edges: int = 0
    num_weights: int = 0
    size: int = 0
    stride: int = 1
    filters: int = -1
    filter_biases: int = -1
    filter_activation: int = 0
    padding: int = 0
    row: int = 0
    column: int = 0
    step: int = 1
    to_row: int = 0
    to_column: int = 0
    to_step: int = 1
    columns: int = 0
    halves: int = -1
    starts: int = -1
    strip: int = 0
    ahead: int = 0


@dataclass(frozen=True)
class Program:
    """Arrays of a program.

    Attributes:
        geometries: int64 (geometries, fields).
        steps: int64 (steps, fields).
        integers, values: int32 and float32.
        names: of the layers that the steps belong to; not part of the file.
    """

    geometries: NDArray[np.int64]
    steps: NDArray[np.int64]
    integers: NDArray[np.int32]
    values: NDArray[np.float32]
    names: tuple[str, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Size of all arrays."""
        return sum(array.nbytes for array in (self.geometries, self.steps, self.integers, self.values))

    def to_bytes(self) -> bytes:
        """Content of a `.wiring` file."""
        counts = (len(self.geometries), len(self.steps), self.integers.size, self.values.size)
        head = struct.pack("<6q", VERSION, len(fields(Step)), *counts)
        arrays = [
            array.astype(kind).tobytes()
            for array, kind in (
                (self.geometries, "<i8"),
                (self.steps, "<i8"),
                (self.integers, "<i4"),
                (self.values, "<f4"),
            )
        ]
        return b"".join([MAGIC, head, *arrays])
