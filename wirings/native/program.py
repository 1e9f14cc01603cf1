"""A compact network as the steps and arrays that the kernels run; see kernels/program.h."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from wirings.compact_network import CompactHead, CompactStage, TargetProduct, dense_weight
from wirings.engines.csr import compressed_rows
from wirings.layout import conv_out_size

STEM, NODES, POOL, HEAD = range(4)
GROUP = 4
"""Maximum number of images that go through the network together."""
SMALL_MAP = 8 * 16
"""Maps with fewer pixels are interleaved for the images of a group, so that vectors are full."""
HEAD_TILE = 64
"""Classes are rounded up to a multiple of this, for vectors of any width."""


@dataclass(frozen=True)
class Step:
    """One step, with the fields of program.h."""

    kind: int
    nodes: int
    height: int = 0
    width: int = 0
    stride: int = 1
    from_buffer: int = 0
    to_buffer: int = 0
    from_nodes: int = 0
    first: int = 0
    interleaved: int = 0
    interleaved_to: int = 0
    starts: int = 0
    sources: int = 0
    mask: int = 0
    weights: int = 0
    biases: int = 0
    bias_maps: int = -1
    filters: int = 0
    channels: int = 0
    in_stride: int = 1
    columns: int = 0
    half: int = 0


@dataclass(frozen=True)
class Program:
    """Steps int64 (steps, fields), integers int32, values float32."""

    steps: Tensor
    integers: Tensor
    values: Tensor


class _Arrays:
    """Concatenated arrays; adding one returns its offset."""

    def __init__(self) -> None:
        self.integers: list[Tensor] = [torch.empty(0, dtype=torch.int32)]
        self.values = [torch.empty(0)]
        self._sizes = [0, 0]

    def add_integers(self, tensor: Tensor) -> int:
        self.integers.append(tensor.int().flatten())
        self._sizes[0] += tensor.numel()
        return self._sizes[0] - tensor.numel()

    def add_values(self, tensor: Tensor) -> int:
        self.values.append(tensor.detach().float().flatten())
        self._sizes[1] += tensor.numel()
        return self._sizes[1] - tensor.numel()


class Writer:
    """Writes the program of a compact network for images of one size.

    Args:
        height, width: of the images.
        lanes: floats per vector of this machine's kernels.
        bf16: store the classifier's weights as bfloat16.
    """

    def __init__(self, height: int, width: int, lanes: int, bf16: bool = False) -> None:
        self.size, self.lanes, self.bf16 = (height, width), lanes, bf16
        self.steps: list[Step] = []
        self.arrays = _Arrays()

    def program(self) -> Program:
        """The program of the steps so far."""
        names = [field.name for field in fields(Step)]
        steps = torch.tensor([[getattr(step, name) for name in names] for step in self.steps])
        return Program(steps, torch.cat(self.arrays.integers), torch.cat(self.arrays.values))

    def stem(self, weight: Tensor, bias: Tensor, stride: int, following: CompactStage) -> None:
        """The first convolution, then the filters of the first nodes of the stage that follows."""
        self.size = self._out_size(stride)
        out = self._out_size(following.stride)
        self.steps.append(
            Step(
                STEM,
                nodes=len(weight),
                height=self.size[0],
                width=self.size[1],
                stride=following.stride,
                to_buffer=_buffer(0, out),
                interleaved_to=_is_interleaved(out),
                weights=self.arrays.add_values(weight),
                biases=self.arrays.add_values(bias),
                filters=self.arrays.add_values(following.filters[0]),
                channels=weight.shape[1],
                in_stride=stride,
            )
        )
        self.size = out

    def stage(
        self, number: int, stage: CompactStage, biases: Sequence[Tensor], following: CompactStage | None
    ) -> None:
        """A stage's products, then the filters of the following stage, or the mean of each map.

        Args:
            number: of the stage; it determines the buffer of its sources.
            biases: added to each product, (targets, 1, S, S) or (targets, 1, 1, 1).
        """
        counts = [len(filters) for filters in stage.filters]
        mask = self._mask()
        for group, (product, bias) in enumerate(zip(stage.products, biases, strict=True)):
            assert isinstance(product, TargetProduct)
            sources, last = sum(counts[: group + 1]), group == len(counts) - 1
            shared = dict(self._edges(product, bias), height=self.size[0], width=self.size[1], mask=mask)
            shared |= dict(
                from_buffer=_buffer(number, self.size),
                from_nodes=sum(counts),
                interleaved=_is_interleaved(self.size),
            )
            if not last:
                filters = self.arrays.add_values(stage.filters[group + 1])
                buffer = dict(
                    to_buffer=shared["from_buffer"], first=sources, interleaved_to=_is_interleaved(self.size)
                )
                self.steps.append(Step(NODES, filters=filters, **buffer, **shared))
            elif following is not None:
                out = self._out_size(following.stride)
                filters = self.arrays.add_values(following.filters[0])
                buffer = dict(to_buffer=_buffer(number + 1, out), interleaved_to=_is_interleaved(out))
                self.steps.append(Step(NODES, filters=filters, stride=following.stride, **buffer, **shared))
                self.size = out
            else:
                self.steps.append(Step(POOL, **shared))

    def head(self, head: CompactHead, constant: Tensor) -> None:
        """The classifier.

        Args:
            constant: the constant part of the logits, (1, classes).
        """
        classes, features = head.weight.shape
        columns = -(-classes // HEAD_TILE) * HEAD_TILE
        padding = (0, columns - classes)
        weights = F.pad(head.weight.t(), padding)
        self.steps.append(
            Step(
                HEAD,
                nodes=classes,
                from_nodes=features,
                columns=columns,
                half=self.bf16,
                weights=self._halves(weights) if self.bf16 else self.arrays.add_values(weights),
                biases=self.arrays.add_values(F.pad(constant, padding)),
            )
        )

    def _edges(self, product: TargetProduct, bias: Tensor) -> dict[str, int]:
        """A product's edges in compressed rows, and its bias."""
        targets = product.num_targets
        starts, sources, weights = compressed_rows(dense_weight(product))
        edges = dict(
            nodes=targets,
            starts=self.arrays.add_integers(starts),
            sources=self.arrays.add_integers(sources),
            weights=self.arrays.add_values(weights),
        )
        bias_maps = bias.expand(targets, 1, *self.size).squeeze(1)
        if bool((bias_maps == bias_maps[:, :1, :1]).all()):
            return edges | dict(biases=self.arrays.add_values(bias_maps[:, 0, 0]))
        maps = self.arrays.add_values(self._in_memory(bias_maps))
        return edges | dict(biases=self.arrays.add_values(torch.zeros(targets)), bias_maps=maps)

    def _halves(self, weights: Tensor) -> int:
        return self.arrays.add_integers(weights.bfloat16().contiguous().view(torch.int32))

    def _mask(self) -> int:
        return self.arrays.add_integers(-self._in_memory(torch.ones(1, *self.size)))

    def _in_memory(self, maps: Tensor) -> Tensor:
        """(nodes, height, width) in the memory layout of an image group: maps.h."""
        height, width = self.size
        rows = height * (width + 1)
        last_row = (height - 1) * (width + 1) + _rounded_up(width, self.lanes)
        image = F.pad(maps, (0, 1)).flatten(1)
        group = F.pad(image.repeat(1, GROUP - 1), (0, max(rows, last_row)))
        group[:, (GROUP - 1) * rows : GROUP * rows] = image
        return F.pad(group, (0, _rounded_up(group.shape[1], self.lanes) - group.shape[1]))

    def _out_size(self, stride: int) -> tuple[int, int]:
        return conv_out_size(self.size[0], stride), conv_out_size(self.size[1], stride)


def _is_interleaved(size: tuple[int, int]) -> int:
    return int(size[0] * size[1] < SMALL_MAP)


def _buffer(stage: int, size: tuple[int, int]) -> int:
    """Buffer of a stage's sources. Interleaved maps stay while the next image is in earlier stages."""
    return stage % 2 + 2 * _is_interleaved(size)


def _rounded_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
