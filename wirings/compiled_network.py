"""Networks of torch that the native engine runs: `compile`, and files of compiled networks."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from wirings.compact_network import CompactNetwork
from wirings.compacting import compact, has_structure, without_dead_channels
from wirings.errors import WiringError, first_line
from wirings.files import write_atomically
from wirings.native.build import load_kernels
from wirings.native.c_interface import Network
from wirings.native.lowering import BatchSize, Item, Lowered, Name, Segment, TorchCall, lower
from wirings.native.mobilenet import operations_of
from wirings.native.planner import plan
from wirings.native.program import Program
from wirings.ready import TOLERANCE, suppress_output
from wirings.wrappers import EvaluationOnly, OneInput

_log = logging.getLogger(__name__)


class EngineNetwork(EvaluationOnly):
    """A network that the native engine runs, on the CPU in float32.

    It is called with images (images, channels, height, width) of the size it was compiled for, any number of
    them, and uses up to `torch.get_num_threads()` threads. Calls from several threads run one after another.

    Attributes:
        shape: (channels, height, width) of an image.
    """

    shape: tuple[int, ...]

    def _checked(self, images: Tensor) -> Tensor:
        """The images, contiguous.

        Raises:
            WiringError: another shape, type or device.
        """
        if images.device.type != "cpu" or images.dtype != torch.float32:
            raise WiringError(
                f"a compiled network takes float32 images on the CPU, got {images.dtype} on {images.device}"
            )
        if tuple(images.shape[1:]) != self.shape:
            shape = ", ".join(map(str, self.shape))
            raise WiringError(f"images must be (images, {shape}), got {tuple(images.shape)}")
        return images.contiguous()


class CompiledNetwork(EngineNetwork):
    """The result of `compile`: programs of the engine, and the operations that torch runs between them.

    Attributes:
        torch_calls: names of the operations that torch runs, with their number and the reason.
    """

    def __init__(self, lowered: Lowered, shape: tuple[int, ...], restore: Callable[[Any], Any]) -> None:
        super().__init__()
        self.shape, self._restore = shape, restore
        self._input, self._output = lowered.input, lowered.output
        self._items: list[_Program | TorchCall] = [_loaded(item) for item in lowered.items]
        calls = [item for item in lowered.items if isinstance(item, TorchCall)]
        self.torch_calls = Counter(f"{call.label}: {call.reason}" for call in calls)
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Any:
        """The output of the network.

        Raises:
            WiringError: images of another shape, type or device.
        """
        tensors: dict[str, Any] = {self._input: self._checked(images)}
        count = len(images)
        for item in self._items:
            if isinstance(item, _Program):
                item.run(tensors)
            else:
                args = _mapped((item.args, item.kwargs), tensors, count)
                tensors[item.name] = item.target(*args[0], **args[1])
        return self._restore(_mapped(self._output, tensors, count))

    def __str__(self) -> str:
        programs = [item for item in self._items if isinstance(item, _Program)]
        steps = sum(len(item.program.steps) for item in programs)
        text = f"native engine: {len(programs)} programs of {steps} steps"
        if not self.torch_calls:
            return text
        calls = [f"{count} × {call}" for call, count in self.torch_calls.items()]
        return f"{text}; torch runs " + "; ".join(calls)

    @property
    def program(self) -> Program:
        """The program of the whole network.

        Raises:
            WiringError: torch runs some operations.
        """
        if len(self._items) != 1 or not isinstance(self._items[0], _Program):
            raise WiringError(f"the engine does not run the whole network: {self}")
        return self._items[0].program

    def save(self, path: str | Path) -> None:
        """Write a `.wiring` file, atomically: docs/inference.md describes it.

        Raises:
            WiringError: torch runs some operations, so that the file would not hold the whole network.
            OSError: the file cannot be written.
        """
        content = self.program.to_bytes()
        write_atomically(Path(path), lambda file: file.write(content))


class LoadedNetwork(EngineNetwork):
    """A network of a `.wiring` file with one input; see `load_compiled`.

    It returns its output, or a tuple of several; an output of 1 × 1 maps is (images, channels).
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network = network
        if len(network.inputs) != 1:
            raise WiringError(f"the network has {len(network.inputs)} inputs, not one")
        self.shape = network.inputs[0]
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Any:
        """The outputs of the network.

        Raises:
            WiringError: images of another shape, type or device.
        """
        outputs = self._network.run([self._checked(images)], torch.get_num_threads())
        results = [output.flatten(1) if output.shape[2:] == (1, 1) else output for output in outputs]
        return results[0] if len(results) == 1 else tuple(results)


def compile(model: nn.Module, example: Tensor) -> CompiledNetwork:
    """The network as the native engine runs it, for images of the example's size.

    Dead channels are removed first, as by `compact`. Weights that are zero cost nothing. Operations that the
    engine does not know are run by torch; `str` of the result names them.

    Args:
        model: a network that is called with one tensor, wired or with weights that are zero; it is not
            changed.
        example: float32 images on the CPU, (images, channels, height, width).

    Raises:
        WiringError: the network does not run on the example, torch.export cannot export it, the engine's
            library cannot be compiled, or the result differs from the network's by more than 1e-4 of the
            largest value.
    """
    load_kernels()
    if example.device.type != "cpu" or example.dtype != torch.float32 or example.dim() != 4:
        raise WiringError(
            "example must be float32 images (images, channels, height, width) on the CPU, got "
            f"{example.dtype} {tuple(example.shape)} on {example.device}"
        )
    shape = tuple(example.shape[1:])
    small: nn.Module
    if has_structure(model):
        small = compact(model, "dense")
        if isinstance(small, CompactNetwork) and small.is_mobilenet_graph:
            operations = operations_of(small, (shape[1], shape[2]))
            classes = (len(small.head.weight),)
            segment = Segment(operations, ["images"], [("logits", classes)])
            return _verified(
                CompiledNetwork(Lowered((segment,), "images", Name("logits")), shape, _same), small, example
            )
    else:
        small, report = without_dead_channels(model, example)
        if report.reason:
            _log.warning("%s", report)
    program = _exported(small, example)
    spec = program.call_spec.out_spec
    network = CompiledNetwork(lower(program), shape, partial(_pytree.tree_unflatten, treespec=spec))
    return _verified(network, small, example)


def load_compiled(path: str | Path) -> LoadedNetwork:
    """The network of a `.wiring` file. Reading it executes nothing; a damaged file is refused.

    Raises:
        WiringError: it is not such a file, or damaged.
        OSError: it cannot be read.
    """
    return LoadedNetwork(load_kernels().open(Path(path).read_bytes()))


class _Program:
    """A program that the engine has loaded, with the names of the tensors that it reads and writes.

    A copy loads the program again.
    """

    def __init__(self, segment: Segment) -> None:
        self.program = plan(segment.operations.list)
        self.network = load_kernels().open(self.program.to_bytes())
        self.inputs, self.outputs = tuple(segment.inputs), tuple(segment.outputs)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "network"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, network=load_kernels().open(state["program"].to_bytes()))

    def run(self, tensors: dict[str, Any]) -> None:
        inputs = [_as_images(tensors[name]) for name in self.inputs]
        results = self.network.run(inputs, torch.get_num_threads())
        for (name, shape), result in zip(self.outputs, results, strict=True):
            tensors[name] = result.view(len(result), *shape)


def _loaded(item: Item) -> _Program | TorchCall:
    return _Program(item) if isinstance(item, Segment) else item


def _as_images(tensor: Tensor) -> Tensor:
    tensor = tensor.contiguous()
    return tensor.view(*tensor.shape, 1, 1) if tensor.dim() == 2 else tensor


def _mapped(value: Any, tensors: dict[str, Any], count: int) -> Any:
    """The value with tensors in place of their names, and the number of images."""
    if isinstance(value, Name):
        return tensors[value.name]
    if isinstance(value, BatchSize):
        return count
    if isinstance(value, (tuple, list)):
        return type(value)(_mapped(one, tensors, count) for one in value)
    if isinstance(value, dict):
        return {name: _mapped(one, tensors, count) for name, one in value.items()}
    return value


def _same(value: Any) -> Any:
    return value


def _exported(network: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """The network as operations without side effects, for any number of images if possible."""
    wrapper = OneInput(network).eval()
    # The number of images becomes a constant if it is 1.
    batch = example[:1].expand(max(len(example), 3), *example.shape[1:])
    images = torch.export.Dim("images", min=1)
    try:
        with torch.no_grad(), suppress_output():
            program: torch.export.ExportedProgram = torch.export.export(
                wrapper, (batch,), dynamic_shapes=({0: images},)
            ).run_decompositions({})
            return program
    except Exception as error:  # the exporter documents no exception types
        name = type(network).__name__
        raise WiringError(f"{name} cannot be exported by torch.export: {first_line(error)}") from error


def _verified(compiled: CompiledNetwork, network: nn.Module, example: Tensor) -> CompiledNetwork:
    with torch.no_grad():
        expected, results = (_pytree.tree_leaves(run(example)) for run in (network, compiled))
    for one, other in zip(expected, results, strict=True):
        if isinstance(one, Tensor) and one.is_floating_point() and one.numel():
            difference = float((one - other).abs().max() / one.abs().max().clamp(min=1e-6))
            if not difference <= TOLERANCE:
                raise WiringError(
                    f"the compiled network's output differs by {difference:.1e} of the largest value"
                )
    _log.info("%s", compiled)
    return compiled


__all__ = ["CompiledNetwork", "EngineNetwork", "LoadedNetwork", "compile", "load_compiled"]
