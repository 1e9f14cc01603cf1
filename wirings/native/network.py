"""A compact MobileNet graph run by the native engine, in one call."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from wirings.cached_module import CachedModule
from wirings.compact_network import CompactNetwork, ConvStem
from wirings.errors import WiringError
from wirings.native.build import load_kernels
from wirings.native.c_interface import Network
from wirings.native.mobilenet import operations_of
from wirings.native.planner import plan
from wirings.native.program import Program
from wirings.wrappers import EvaluationOnly

MAX_SIZES = 4
"""Sizes of images whose programs are kept."""


class NativeNetwork(EvaluationOnly, CachedModule):
    """Stem, stages and head as one program of the native engine; only for the CPU and float32.

    A program is written for each size of images. Those of the sizes used last are kept, with their
    workspaces, so that a further call allocates only the logits. Calls from several threads run one after
    another.

    Args:
        network: a compact MobileNet graph with dense products, on the CPU.
        bf16: store the classifier's weights as bfloat16, which halves the bytes to read; logits then differ
            by about 1e-3 of the largest.

    Raises:
        WiringError: the library could not be compiled.
    """

    cached_attributes = ("_programs", "_busy", "_process")

    def __init__(self, network: CompactNetwork, bf16: bool = False) -> None:
        super().__init__()
        load_kernels()
        assert isinstance(network.stem, ConvStem)
        self.network, self.stem, self.bf16 = network, network.stem, bf16
        self.register_buffer("normalisation", torch.empty(0), persistent=False)
        self.eval()

    def reset_cache(self) -> None:
        self._programs: dict[tuple[int, int], tuple[Program, Network]] = {}
        self._busy, self._process = threading.RLock(), os.getpid()

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
        self.normalisation = torch.stack([1 / spread, -255 * torch.tensor(mean) / spread])

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """float32 (images, channels, height, width), or uint8 (images, height, width, channels), to logits.

        Raises:
            WiringError: images of another type, device or number of channels.
        """
        return self._run(images, None)

    def _run(self, images: Tensor, seconds: Tensor | None) -> Tensor:
        height, width = self._checked_size(images)
        if not len(images):
            return torch.empty(0, len(self.network.head.weight))
        _, network = self._program(height, width)
        images, threads = images.contiguous(), torch.get_num_threads()
        if images.dtype == torch.uint8:
            (logits,) = network.run_bytes(images, self.normalisation, threads)
        else:
            (logits,) = network.run([images], threads, seconds)
        return logits.flatten(1)

    def step_seconds(self, images: Tensor) -> Tensor:
        """Seconds of each step in the first thread, including the wait for others: (steps), float64."""
        seconds = torch.zeros(len(self.program(*self._checked_size(images)).steps), dtype=torch.float64)
        self._run(images, seconds)
        return seconds

    def program(self, height: int, width: int) -> Program:
        """The program for images of a size."""
        return self._program(height, width)[0]

    def program_bytes(self) -> int:
        """Size of all programs that are kept, in bytes."""
        return sum(program.num_bytes for program, _ in self._programs.values())

    def _checked_size(self, images: Tensor) -> tuple[int, int]:
        """(height, width) of images that the engine can take."""
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

    def _program(self, height: int, width: int) -> tuple[Program, Network]:
        if self._process != os.getpid():  # in a forked process; the parent's locks may be held forever
            self.reset_cache()
        with self._busy:
            programs, key = self._programs, (height, width)
            if key not in programs:
                program = plan(operations_of(self.network, key).list, bf16=self.bf16)
                programs[key] = program, load_kernels().open(program.to_bytes())
                if len(programs) > MAX_SIZES:
                    del programs[next(iter(programs))]
            else:
                programs[key] = programs.pop(key)
            return programs[key]
