"""A trained wiring for other programs: as an ONNX network, or as arrays of its edges. See docs/export.md."""

from __future__ import annotations

import importlib
import io
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from genutil.atomic import write_atomically
from genutil.errors import UserError
from models.fast_eval.compact import compact
from models.fast_eval.engines.csr import compressed_rows
from models.fast_eval.network import CompactNetwork, CompactStage, ConvStem, Onto
from models.fast_eval.portable import PortableNetwork, dense_weight

ENDINGS = (".onnx", ".safetensors")
TOLERANCE = 1e-4
"""Of logits, as a part of the largest."""

log = logging.getLogger(__name__)


def export(model: nn.Module, path: Path, shape: Sequence[int]) -> str:
    """Write a network without its dead neurons to a file, whole or not at all.

    Args:
        model: any network that `compact` takes; graphs in continuous time have no such form.
        path: ends in .onnx or .safetensors; the latter is for MobileNet graphs.
        shape: (channels, height, width) of the images.

    Returns:
        One line that tells what was written and how it was checked.

    Raises:
        ValueError: the network cannot be written so.
        UserError: a package is missing, or an ONNX runtime calculates other logits.
        OSError: the file cannot be written.
    """
    if path.suffix not in ENDINGS:
        raise ValueError(f"export: the name must end in {' or '.join(ENDINGS)}, got {path.name}")
    types = {parameter.dtype for parameter in model.parameters()}
    if types - {torch.float32}:
        raise ValueError("export: the network must be in float32; call its float() first")
    small = compact(model, "dense").cpu()
    write, told = (_as_onnx if path.suffix == ".onnx" else _as_safetensors)(small, shape)
    write_atomically(path, write)
    return f"{path}: {path.stat().st_size / 1e6:.2f} MB, {told}"


_Written = tuple[Callable[[BinaryIO], object], str]


def _as_onnx(small: nn.Module, shape: Sequence[int]) -> _Written:
    _needed("onnx", "onnxscript")
    for chatty in ("onnxscript", "onnx_ir"):  # they tell of each constant
        logging.getLogger(chatty).setLevel(logging.WARNING)
    network = PortableNetwork(small, shape) if isinstance(small, CompactNetwork) else small
    program = torch.onnx.export(
        network,
        (torch.randn(2, *shape),),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: "images"},),
        verbose=False,
    )
    assert program is not None
    content = io.BytesIO(program.model_proto.SerializeToString())
    return lambda file: file.write(content.getvalue()), _checked(content.getvalue(), small, shape)


def _checked(content: bytes, small: nn.Module, shape: Sequence[int]) -> str:
    """Runs the file and compares logits, for one image and for three."""
    try:
        runtime: Any = importlib.import_module("onnxruntime")
    except ModuleNotFoundError:
        return "not checked: pip install onnxruntime for that"
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    errors = []
    for count in (1, 3):
        images = torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))
        (logits,) = session.run(None, {"images": images.numpy()})
        wanted = small(images)
        error = (torch.from_numpy(logits) - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6)
        errors.append(float(error))
    largest = max(errors)
    if not all(error <= TOLERANCE for error in errors):  # nor any that is no number
        raise UserError(
            f"export: onnxruntime {runtime.__version__} gives logits that differ by {largest:.1e} of the "
            "largest"
        )
    return f"logits in onnxruntime {runtime.__version__} differ by {largest:.0e} of the largest"


def _as_safetensors(small: nn.Module, shape: Sequence[int]) -> _Written:
    save: Any = _needed("safetensors.torch").save
    if not isinstance(small, CompactNetwork) or not isinstance(small.stem, ConvStem):
        raise ValueError(
            "export: .safetensors is for MobileNet graphs; this network can be exported as .onnx"
        )
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
            assert isinstance(product, Onto)
            name = f"stages.{number}.{step}"
            starts, sources, weights = compressed_rows(dense_weight(product))
            arrays[f"{name}.filters"] = filters.data.squeeze(1)
            arrays |= {f"{name}.starts": starts, f"{name}.sources": sources, f"{name}.weights": weights}
            arrays[f"{name}.bias"] = bias.squeeze(1)
    arrays |= {"head.weight": network.head.weight.data, "head.bias": constant.flatten()}
    return arrays, strides


def _needed(*names: str) -> Any:
    """The first of these modules; all must be there."""
    try:
        first, *_ = [importlib.import_module(name) for name in names]
        return first
    except ModuleNotFoundError as error:
        packages = " ".join(name.partition(".")[0] for name in names)
        raise UserError(f"export needs {error.name}: pip install {packages}") from error
