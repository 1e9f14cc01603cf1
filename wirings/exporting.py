"""Export of trained networks: to ONNX, to a program of torch.export, or to arrays of the edges; see
docs/export.md.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from wirings.channel_report import ChannelReport
from wirings.compact_network import CompactNetwork, CompactStage, ConvStem, TargetProduct, dense_weight
from wirings.compacting import compact, has_structure, without_dead_channels
from wirings.compiled_network import compile
from wirings.engines.csr import compressed_rows
from wirings.errors import WiringError, first_line
from wirings.files import write_atomically
from wirings.onnx_file import import_packages, onnx_content
from wirings.portable import PortableNetwork
from wirings.program_file import program_content
from wirings.ready import ready_for_export

ENDINGS = (".onnx", ".pt2", ".safetensors", ".wiring")


def export(model: nn.Module, path: str | Path, shape: Sequence[int]) -> str:
    """Write a network to a file, atomically.

    A network with a structure is compacted (`compact`). Any other one is written without its dead channels,
    by the edges in use or, if it is not wired, by its weights other than zero; if no channel can be removed,
    it is written unchanged, with frozen weights of its edge rules.

    Args:
        model: the network; it is not changed.
        path: ends in .onnx, .pt2 (a program of torch.export), .wiring (a program of the native engine) or
            .safetensors; the latter is for MobileNet graphs.
        shape: (channels, height, width) of the images.

    Returns:
        A one-line description of the file and of its check.

    Raises:
        WiringError: the network cannot be written in this format, or the file has other logits.
        MissingPackageError: a package is missing.
        OSError: the file cannot be written.
    """
    path = Path(path)
    check_ending(path, ENDINGS)
    if path.suffix == ".wiring":
        return _write_wiring(model, path, shape)
    if path.suffix != ".safetensors":
        return write_network(*smaller_network(model, shape), path, shape)
    _check_type(model)
    if not has_structure(model):
        raise _no_edge_file()
    write, description = _as_safetensors(compact(model, "dense").cpu(), shape)
    return _write(path, write, description)


def _write_wiring(model: nn.Module, path: Path, shape: Sequence[int]) -> str:
    _check_type(model)
    example = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    network = compile(copy.deepcopy(model).cpu(), example)
    content = network.program.to_bytes()
    return _write(path, lambda file: file.write(content), f"{len(network.program.steps)} steps")


def check_ending(path: Path, endings: Sequence[str]) -> None:
    """Refuse a file name with another suffix.

    Raises:
        WiringError: it has another suffix.
    """
    if path.suffix not in endings:
        listed = " or ".join([", ".join(endings[:-1]), endings[-1]] if len(endings) > 1 else endings)
        raise WiringError(f"the name must end in {listed}, got {path.name}")


def smaller_network(model: nn.Module, shape: Sequence[int]) -> tuple[nn.Module, ChannelReport | None]:
    """The network that `export` writes: the result of `compact`, or `model` if no channel can be removed.

    Args:
        model: the network; it is not changed.
        shape: (channels, height, width) of the images.

    Returns:
        The network, and the report of its channels if it has no structure.

    Raises:
        WiringError: the network is not in float32, does not run on such images, or does not return logits.
    """
    _check_type(model)
    if has_structure(model):
        return compact(model, "dense").cpu(), None
    example = torch.randn(2, *shape, device=_device(model))
    with ready_for_export(model):
        _check_logits(model, example)
    small, report = without_dead_channels(model, example)
    return (small.cpu() if _is_smaller(report) else model), report


def write_network(network: nn.Module, report: ChannelReport | None, path: Path, shape: Sequence[int]) -> str:
    """Write the result of `smaller_network`, as ONNX or as a program of torch.export.

    Returns, Raises: as in `export`.
    """
    device = _device(network)
    portable = PortableNetwork(network, shape) if isinstance(network, CompactNetwork) else network
    with ready_for_export(portable):
        content, compare = _CONTENTS[path.suffix](portable, torch.randn(2, *shape, device=device))
        checked = compare(network, shape, device)
    if report is not None:
        counts = f"{report.params_after:,} of {report.params_before:,} parameters"
        checked = f"{counts if _is_smaller(report) else 'the full network'}, {checked}"
    return _write(path, lambda file: file.write(content), checked)


_CONTENTS = {".onnx": onnx_content, ".pt2": program_content}
_Written = tuple[Callable[[BinaryIO], object], str]


def _write(path: Path, write: Callable[[BinaryIO], object], description: str) -> str:
    write_atomically(path, write)
    return f"{path}: {path.stat().st_size / 1e6:.2f} MB, {description}"


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters(), torch.empty(0)).device


def _is_smaller(report: ChannelReport) -> bool:
    return any(layer.after < layer.before for layer in report.layers)


def _check_type(model: nn.Module) -> None:
    if {parameter.dtype for parameter in model.parameters()} - {torch.float32}:
        raise WiringError("the network must be in float32; call its float() first")


def _check_logits(model: nn.Module, images: Tensor) -> None:
    """Refuse a network that does not run on images of this shape, or does not return logits."""
    name = type(model).__name__
    try:
        logits = model(images)
    except Exception as error:  # a network of the user's may raise anything
        shape = "×".join(map(str, images.shape[1:]))
        raise WiringError(f"{name} does not run on images of {shape} ({first_line(error)})") from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(images):
        result = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise WiringError(
            f"{name} must return logits (images, classes); for {len(images)} images it returned {result}"
        )


def _no_edge_file() -> WiringError:
    return WiringError(".safetensors is for MobileNet graphs; this network can be exported as .onnx")


def _as_safetensors(small: nn.Module, shape: Sequence[int]) -> _Written:
    save: Any = import_packages("safetensors.torch").save
    if not isinstance(small, CompactNetwork) or not small.is_mobilenet_graph:
        raise _no_edge_file()
    arrays, strides = edge_arrays(small, shape)
    metadata = {
        "format": "wirings 1",
        "shape": json.dumps(list(shape)),
        "strides": json.dumps(strides),
    }
    edges = sum(len(array) for name, array in arrays.items() if name.endswith(".weights"))
    content = save({name: array.contiguous() for name, array in arrays.items()}, metadata)
    return lambda file: file.write(content), f"{edges:,} edges"


def edge_arrays(network: CompactNetwork, shape: Sequence[int]) -> tuple[dict[str, Tensor], list[int]]:
    """The network's arrays by name, and the strides of the stem and of each stage."""
    stem = network.stem
    assert isinstance(stem, ConvStem)
    biases, constant = network.constants_for(stem(torch.zeros(1, *shape)))
    arrays = {"stem.weight": stem.weight.data, "stem.bias": stem.bias.data}
    strides = [stem.stride]
    for number, (stage, stage_biases) in enumerate(zip(network.stages, biases, strict=True)):
        assert isinstance(stage, CompactStage)
        strides.append(stage.stride)
        for step, arguments in enumerate(zip(stage.filters, stage.products, stage_biases, strict=True)):
            filters, product, bias = arguments
            assert isinstance(product, TargetProduct)
            name = f"stages.{number}.{step}"
            starts, sources, weights = compressed_rows(dense_weight(product))
            arrays[f"{name}.filters"] = filters.data.squeeze(1)
            arrays |= {f"{name}.starts": starts, f"{name}.sources": sources, f"{name}.weights": weights}
            arrays[f"{name}.bias"] = bias.squeeze(1)
    arrays |= {"head.weight": network.head.weight.data, "head.bias": constant.flatten()}
    return arrays, strides
