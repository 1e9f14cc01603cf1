"""A network as the content of an ONNX file, and the comparison of its logits with those of the network."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wirings.blocks import read_blocks
from wirings.errors import MissingPackageError, WiringError
from wirings.rules.base import EdgeRule
from wirings.wrappers import OneInput

TOLERANCE = 1e-4
"""Of logits, as a part of the largest."""
_WHERE = re.compile(r'call raised this error:\s+File "(.+)", line (\d+), in \w+\n\s+(.+)')


@contextlib.contextmanager
def ready_for_export(model: nn.Module) -> Iterator[None]:
    """Within it, a network is in evaluation mode, and its edge rules give weights that are chosen already."""
    modes = [(module, module.training) for module in model.modules()]
    rules = [module for module in model.modules() if isinstance(module, EdgeRule)]
    model.eval()
    try:
        with torch.no_grad():
            for rule in rules:
                _fix_weights(rule)
            yield
    finally:
        for rule in rules:
            rule.__dict__.pop("forward", None)
            rule.__dict__.pop("blocks", None)
        for module, training in modes:
            module.training = training


def _fix_weights(rule: EdgeRule) -> None:
    weights = rule().clone()
    rule.forward = lambda: weights  # type: ignore[method-assign]
    rule.blocks = lambda pieces: read_blocks(weights, pieces)  # type: ignore[method-assign]


def onnx_content(network: nn.Module, example: Tensor) -> bytes:
    """The content of an ONNX file that calculates the logits of any number of images.

    Args:
        network: in evaluation mode.
        example: two images.

    Raises:
        WiringError: torch.onnx cannot export the network, for a reason that is given.
        MissingPackageError: a package is missing.
    """
    needed("onnx", "onnxscript")
    try:
        with torch.no_grad(), _silence():
            program = torch.onnx.export(
                # torch.export cannot take a network that has a part called `graph` itself.
                OneInput(network).eval(),
                (example,),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: "images"},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter promises no exception types
        raise WiringError(f"{type(network).__name__} cannot be exported as ONNX: {_reason(error)}") from error
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Within it, nothing is logged or printed: the exporter prints each constant, and whole programs."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _reason(error: BaseException) -> str:
    """One line: what the exporter could not do, and in which line of the network's code."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    reason = text.partition("\n")[0] or type(error).__name__
    if "data-dependent" in reason:
        reason = "what its forward method does depends on the values of tensors, which ONNX cannot express"
    place = _WHERE.search(text)
    return f"{reason} ({Path(place[1]).name}, line {place[2]}: {place[3].strip()})" if place else reason


def compared(content: bytes, network: nn.Module, shape: Sequence[int], device: torch.device) -> str:
    """Run a file's content for one image and for three; one line about the difference of the logits.

    Raises:
        WiringError: an ONNX runtime calculates other logits.
    """
    try:
        runtime: Any = importlib.import_module("onnxruntime")
    except ModuleNotFoundError:
        return "not checked: pip install onnxruntime for that"
    try:
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        errors = [_difference(session, network, count, shape, device) for count in (1, 3)]
    except Exception as error:  # the runtime has exception types of its own
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
        raise WiringError(f"onnxruntime {runtime.__version__} cannot run the network: {reason}") from error
    largest = max(errors)
    if not all(error <= TOLERANCE for error in errors):  # nor any that is no number
        raise WiringError(
            f"onnxruntime {runtime.__version__} gives logits that differ by {largest:.1e} of the largest"
        )
    return f"logits in onnxruntime {runtime.__version__} differ by {largest:.0e} of the largest"


def _difference(
    session: Any, network: nn.Module, count: int, shape: Sequence[int], device: torch.device
) -> float:
    images = torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = network(images.to(device)).cpu()
    return float((torch.from_numpy(logits) - expected).abs().max() / expected.abs().max().clamp(min=1e-6))


def needed(*names: str) -> Any:
    """The first of these modules; all must be there."""
    try:
        first, *_ = [importlib.import_module(name) for name in names]
        return first
    except ModuleNotFoundError as error:
        packages = " ".join(name.partition(".")[0] for name in names)
        raise MissingPackageError(f"export needs {error.name}: pip install {packages}") from error
