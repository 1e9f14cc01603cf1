"""The engine's library, through its C interface: kernels/wirings.h."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from wirings.errors import WiringError


class Library:
    """The functions of a library file.

    Raises:
        OSError: the file cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        self._functions = ctypes.CDLL(str(path))
        for name in ("wirings_error", "wirings_target"):
            getattr(self._functions, name).restype = ctypes.c_char_p

    @property
    def target(self) -> str:
        """Name of the kernels that this processor runs."""
        name: bytes = self._functions.wirings_target()
        return name.decode()

    def open(self, content: bytes) -> Network:
        """The network of a `.wiring` file.

        Raises:
            WiringError: the content is not such a file, or damaged.
        """
        handle = ctypes.c_void_p()
        self._check(
            self._functions.wirings_open(content, ctypes.c_size_t(len(content)), ctypes.byref(handle))
        )
        return Network(self, handle)

    def close(self, handle: ctypes.c_void_p) -> None:
        """Free a network."""
        self._functions.wirings_close(handle)

    def shapes(self, handle: ctypes.c_void_p) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        """(channels, height, width) of the inputs and of the outputs."""
        result = []
        for kind in ("input", "output"):
            count = getattr(self._functions, f"wirings_{kind}s")(handle)
            shapes = []
            for number in range(count):
                shape = (ctypes.c_int64 * 3)()
                self._check(getattr(self._functions, f"wirings_{kind}_shape")(handle, number, shape))
                shapes.append(tuple(shape))
            result.append(shapes)
        return result[0], result[1]

    def run(
        self,
        handle: ctypes.c_void_p,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        images: int,
        threads: int,
        seconds: Tensor | None,
    ) -> None:
        """Run a network. Sizes are not checked."""
        times = None if seconds is None else ctypes.c_void_p(seconds.data_ptr())
        run = self._functions.wirings_run_timed
        self._check(
            run(handle, _addresses(inputs), _addresses(outputs), ctypes.c_int64(images), threads, times)
        )

    def run_bytes(
        self,
        handle: ctypes.c_void_p,
        pixels: Tensor,
        normalisation: Tensor,
        outputs: Sequence[Tensor],
        threads: int,
    ) -> None:
        """Run a network on bytes (images, height, width, channels), times `normalisation[0]` plus
        `normalisation[1]` by channel. Sizes are not checked.
        """
        scale, shift = (ctypes.c_void_p(row.data_ptr()) for row in normalisation)
        address, images = ctypes.c_void_p(pixels.data_ptr()), ctypes.c_int64(len(pixels))
        run = self._functions.wirings_run_bytes
        self._check(run(handle, address, scale, shift, _addresses(outputs), images, threads))

    def product(
        self, starts: Tensor, columns: Tensor, weights: Tensor, sources: Tensor, result: Tensor, threads: int
    ) -> None:
        """`result` (targets, pixels) = weights in compressed rows times `sources` (nodes, pixels). Sizes are
        not checked.
        """
        tensors = (starts, columns, weights, sources, result)
        addresses = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
        targets, pixels = (ctypes.c_int64(length) for length in result.shape)
        self._functions.wirings_product(*addresses, targets, pixels, threads)

    def _check(self, status: int) -> None:
        if status:
            reason: bytes = self._functions.wirings_error()
            raise WiringError(f"engine native: {reason.decode(errors='replace')}")


class Network:
    """A network that the library has opened. It is closed when nothing refers to it."""

    def __init__(self, library: Library, handle: ctypes.c_void_p) -> None:
        self._engine, self._handle = library, handle
        self.inputs, self.outputs = library.shapes(handle)

    def __del__(self) -> None:
        self._engine.close(self._handle)

    def run(self, inputs: Sequence[Tensor], threads: int, seconds: Tensor | None = None) -> list[Tensor]:
        """The outputs, float32 (images, channels, height, width).

        Args:
            inputs: contiguous float32 tensors on the CPU, (images, channels, height, width).
            threads: the maximum number of threads.
            seconds: float64 (steps): the time of each step in the first thread, including the wait for
                others, is added.

        Raises:
            WiringError: an input has another shape.
        """
        images = len(inputs[0])
        for tensor, shape in zip(inputs, self.inputs, strict=True):
            if tuple(tensor.shape) != (images, *shape):
                raise WiringError(f"engine native: an input is {tuple(tensor.shape)}, not {(images, *shape)}")
        outputs = self._empty_outputs(images)
        self._engine.run(self._handle, inputs, outputs, images, threads, seconds)
        return outputs

    def run_bytes(self, pixels: Tensor, normalisation: Tensor, threads: int) -> list[Tensor]:
        """The outputs for contiguous uint8 images (images, height, width, channels).

        Args:
            normalisation: (2, channels): factor and summand of each channel.
        """
        outputs = self._empty_outputs(len(pixels))
        self._engine.run_bytes(self._handle, pixels, normalisation, outputs, threads)
        return outputs

    def _empty_outputs(self, images: int) -> list[Tensor]:
        return [torch.empty(images, *shape) for shape in self.outputs]


def _addresses(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * max(len(tensors), 1))(*(tensor.data_ptr() for tensor in tensors))
