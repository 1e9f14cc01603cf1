"""A trained network for other programs: as ONNX, or as arrays of its edges. See docs/export.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from wirings.compact_network import CompactNetwork, CompactStage, ConvStem, TargetProduct, dense_weight
from wirings.compacting import compact, has_structure, without_dead_channels
from wirings.engines.csr import compressed_rows
from wirings.errors import WiringError, first_line
from wirings.files import write_atomically
from wirings.onnx_file import compared, needed, onnx_content, ready_for_export
from wirings.portable import PortableNetwork

ENDINGS = (".onnx", ".safetensors")


def export(model: nn.Module, path: str | Path, shape: Sequence[int]) -> str:
    """Write a network to a file, whole or not at all.

    A network with a structure is written as `compact` makes it. Any other one is written without its dead
    channels, by the edges in use or, if it is not wired, by its weights other than zero; and if no channel
    can be removed, as it is, with the weights of its edge rules fixed.

    Args:
        model: the network; it is not changed.
        path: ends in .onnx or .safetensors; the latter is for MobileNet graphs.
        shape: (channels, height, width) of the images.

    Returns:
        One line that says what was written and how it was checked.

    Raises:
        WiringError: the network cannot be written so, or an ONNX runtime calculates other logits.
        MissingPackageError: a package is missing.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise WiringError(f"the name must end in {' or '.join(ENDINGS)}, got {path.name}")
    types = {parameter.dtype for parameter in model.parameters()}
    if types - {torch.float32}:
        raise WiringError("the network must be in float32; call its float() first")
    if not has_structure(model):
        if path.suffix == ".safetensors":
            raise _no_edge_file()
        write, written = _without_structure(model, shape)
    else:
        small = compact(model, "dense").cpu()
        write, written = (_as_safetensors if path.suffix == ".safetensors" else _as_onnx)(small, shape)
    write_atomically(path, write)
    return f"{path}: {path.stat().st_size / 1e6:.2f} MB, {written}"


_Written = tuple[Callable[[BinaryIO], object], str]


def _as_onnx(small: nn.Module, shape: Sequence[int]) -> _Written:
    network = PortableNetwork(small, shape) if isinstance(small, CompactNetwork) else small
    content = onnx_content(network, torch.randn(2, *shape))
    return lambda file: file.write(content), compared(content, small, shape, torch.device("cpu"))


def _without_structure(model: nn.Module, shape: Sequence[int]) -> _Written:
    device = next(model.parameters(), torch.empty(0)).device
    example = torch.randn(2, *shape, device=device)
    with ready_for_export(model):
        _check_logits(model, example)
    small, report = without_dead_channels(model, example)
    if any(layer.after < layer.before for layer in report.layers):
        write, checked = _as_onnx(small.cpu(), shape)
        return write, f"{report.params_after:,} of {report.params_before:,} parameters, {checked}"
    with ready_for_export(model):
        content = onnx_content(model, example)
        checked = compared(content, model, shape, device)
    return lambda file: file.write(content), f"the whole network, {checked}"


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
            f"{name} must return logits (images, classes); for {len(images)} images it gave {result}"
        )


def _no_edge_file() -> WiringError:
    return WiringError(".safetensors is for MobileNet graphs; this network can be exported as .onnx")


def _as_safetensors(small: nn.Module, shape: Sequence[int]) -> _Written:
    save: Any = needed("safetensors.torch").save
    if not isinstance(small, CompactNetwork) or not small.is_mobilenet_graph:
        raise _no_edge_file()
    arrays, strides = edge_arrays(small, shape)
    about = {
        "format": "wirings 1",
        "shape": json.dumps(list(shape)),
        "strides": json.dumps(strides),
    }
    edges = sum(len(array) for name, array in arrays.items() if name.endswith(".weights"))
    content = save({name: array.contiguous() for name, array in arrays.items()}, about)
    return lambda file: file.write(content), f"{edges:,} edges"


def edge_arrays(network: CompactNetwork, shape: Sequence[int]) -> tuple[dict[str, Tensor], list[int]]:
    """The network's arrays by name, and the strides of the stem and of each stage."""
    stem = network.stem
    assert isinstance(stem, ConvStem)
    biases, constant = network.constants_for(stem(torch.zeros(1, *shape)))
    arrays = {"stem.weight": stem.weight.data, "stem.bias": stem.bias.data}
    strides = [stem.stride]
    for number, (stage, added) in enumerate(zip(network.stages, biases, strict=True)):
        assert isinstance(stage, CompactStage)
        strides.append(stage.stride)
        for step, parts in enumerate(zip(stage.filters, stage.products, added, strict=True)):
            filters, product, bias = parts
            assert isinstance(product, TargetProduct)
            name = f"stages.{number}.{step}"
            starts, sources, weights = compressed_rows(dense_weight(product))
            arrays[f"{name}.filters"] = filters.data.squeeze(1)
            arrays |= {f"{name}.starts": starts, f"{name}.sources": sources, f"{name}.weights": weights}
            arrays[f"{name}.bias"] = bias.squeeze(1)
    arrays |= {"head.weight": network.head.weight.data, "head.bias": constant.flatten()}
    return arrays, strides
