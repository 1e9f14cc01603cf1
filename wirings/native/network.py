"""A compact network run by the native kernels, in one call."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from wirings.cached_module import CachedModule
from wirings.compact_network import CompactNetwork, CompactStage, ConvStem
from wirings.errors import WiringError
from wirings.layout import conv_out_size
from wirings.native.build import load_kernels
from wirings.native.program import NODES, POOL, Program, Step, Writer
from wirings.wrappers import EvaluationOnly

_Value = TypeVar("_Value")


class _LRUCache(Generic[_Value]):
    """Values of the keys used last."""

    def __init__(self, limit: int = 4) -> None:
        self.limit = limit
        self.entries: dict[tuple[int, ...], _Value] = {}

    def get(self, key: tuple[int, ...], make: Callable[[], _Value]) -> _Value:
        self.entries[key] = self.entries.pop(key) if key in self.entries else make()
        if len(self.entries) > self.limit:
            del self.entries[next(iter(self.entries))]
        return self.entries[key]


class NativeNetwork(EvaluationOnly, CachedModule):
    """Stem, stages and head as one list of steps; only for the CPU and float32.

    A program is written for each size of images, and a workspace allocated for each size, number of images
    and number of threads; further calls allocate only the logits. Both are cached for the sizes used last.
    Calls from several threads run one after another.

    Args:
        network: a compact MobileNet graph with dense products, on the CPU.
        bf16: store the classifier's weights as bfloat16, which halves the bytes to read; logits then differ
            by about 1e-3 of the largest.

    Raises:
        WiringError: the kernels could not be compiled.
    """

    cached_attributes = ("_programs", "_workspaces", "_busy", "_process")

    def __init__(self, network: CompactNetwork, bf16: bool = False) -> None:
        super().__init__()
        load_kernels()
        assert isinstance(network.stem, ConvStem)
        self.network, self.stem, self.bf16 = network, network.stem, bf16
        self.register_buffer("normalisation", torch.empty(0), persistent=False)
        self.eval()

    def reset_cache(self) -> None:
        self._programs: _LRUCache[Program] = _LRUCache()
        self._workspaces: _LRUCache[Tensor] = _LRUCache()
        self._busy, self._process = threading.RLock(), os.getpid()

    def _lock(self) -> threading.RLock:
        """The lock; in a forked process a new one, since the parent's may be held forever."""
        if self._process != os.getpid():
            self._busy, self._process = threading.RLock(), os.getpid()
        return self._busy

    def normalise_bytes(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Also accept uint8 images, as (value / 255 − mean) / std by channel.

        Raises:
            WiringError: mean or std has not one number for each channel, or a std is not above 0.
        """
        channels = self.stem.weight.shape[1]
        if not len(mean) == len(std) == channels or min(std) <= 0:
            raise WiringError(
                f"normalise_bytes takes {channels} means and as many std above 0, got {mean}, {std}"
            )
        spread = torch.tensor(std) * 255
        self.normalisation = torch.cat([1 / spread, -255 * torch.tensor(mean) / spread])

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """float32 (images, channels, height, width), or uint8 (images, height, width, channels), to logits.

        Raises:
            WiringError: images of another type, device or number of channels.
        """
        return self._run(images, None)

    def _run(self, images: Tensor, seconds: Tensor | None) -> Tensor:
        height, width = self._checked_size(images)
        classes = len(self.network.head.weight)
        if not len(images):
            return torch.empty(0, classes)
        program, threads = self._program(height, width), torch.get_num_threads()
        with self._lock():
            logits: Tensor = torch.ops.wirings_native.run(
                images.contiguous(),
                program.steps,
                program.integers,
                program.values,
                self.normalisation,
                self._workspace(program, (height, width, len(images), threads)),
                classes,
                threads,
                seconds,
            )
        return logits

    def step_seconds(self, images: Tensor) -> Tensor:
        """Seconds of each step in the first thread, including the wait for others: (steps), float64."""
        seconds = torch.zeros(len(self._program(*self._checked_size(images)).steps), dtype=torch.float64)
        self._run(images, seconds)
        return seconds

    def steps(self, height: int, width: int) -> tuple[list[Step], list[int]]:
        """The steps for images of a size, and the number of edges of each."""
        program = self._program(height, width)
        steps = [Step(*row) for row in program.steps.tolist()]
        ends = [step.starts + step.nodes if step.kind in (NODES, POOL) else -1 for step in steps]
        return steps, [0 if end < 0 else int(program.integers[end]) for end in ends]

    def program_bytes(self) -> int:
        """Size of all cached programs, in bytes."""
        arrays = [array for program in self._programs.entries.values() for array in vars(program).values()]
        return sum(array.numel() * array.element_size() for array in arrays)

    def _checked_size(self, images: Tensor) -> tuple[int, int]:
        """(height, width) of images that the kernels can take."""
        are_bytes, channels = images.dtype == torch.uint8, self.stem.weight.shape[1]
        if images.device.type != "cpu":
            raise WiringError(f"engine native runs on the CPU; images are on {images.device}")
        if images.dtype != torch.float32 and not are_bytes:
            raise WiringError(f"engine native takes images of float32 or uint8, got {images.dtype}")
        if images.dim() != 4 or images.shape[3 if are_bytes else 1] != channels:
            shape = "(images, height, width, {})" if are_bytes else "(images, {}, height, width)"
            raise WiringError(f"images must be {shape.format(channels)}, got {tuple(images.shape)}")
        if are_bytes and not self.normalisation.numel():
            raise WiringError("uint8 images need mean and std: call normalise_bytes first")
        height, width = images.shape[1:3] if are_bytes else images.shape[2:]
        return height, width

    def _program(self, height: int, width: int) -> Program:
        lanes = torch.ops.wirings_native.lanes
        with self._lock():
            return self._programs.get((height, width), lambda: self.write(height, width, lanes()))

    def write(self, height: int, width: int, lanes: int) -> Program:
        """The program for images of a size, for kernels with vectors of `lanes` floats."""
        writer, stem = Writer(height, width, lanes, self.bf16), self.stem
        stages = [stage for stage in self.network.stages if isinstance(stage, CompactStage)]
        size = [conv_out_size(length, stem.stride) for length in (height, width)]
        biases, logits = self.network.constants_for(stem.weight.new_empty(0, 1, *size))
        writer.stem(stem.weight, stem.bias, stem.stride, stages[0])
        followings = [*stages[1:], None]
        for number, (stage, following) in enumerate(zip(stages, followings, strict=True)):
            writer.stage(number, stage, biases[number], following)
        writer.head(self.network.head, logits)
        return writer.program()

    def _workspace(self, program: Program, key: tuple[int, ...]) -> Tensor:
        workspace = torch.ops.wirings_native.workspace
        return self._workspaces.get(
            key, lambda: torch.zeros(workspace(program.steps, program.integers, program.values, *key[2:]))
        )
