"""Content of an ONNX file of a network."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wirings.errors import MissingPackageError, WiringError
from wirings.ready import Compare, checked, largest_difference, reason_of, suppress_output
from wirings.wrappers import OneInput


def onnx_content(network: nn.Module, example: Tensor) -> tuple[bytes, Compare]:
    """The content of an ONNX file for any number of images.

    Args:
        network: ready_for_export.
        example: two images.

    Returns:
        The content, and a function that compares its logits for one image and for three.

    Raises:
        WiringError: torch.onnx cannot export the network, or is that of torch 2.6; the message gives the
            reason.
        MissingPackageError: a package is missing.
    """
    if torch.__version__ < "2.7":
        raise WiringError("torch 2.6 cannot export this as ONNX; install a newer torch, such as 2.14.1")
    import_packages("onnx", "onnxscript")
    try:
        with torch.no_grad(), suppress_output():
            program = torch.onnx.export(
                # torch.export cannot export a network with a submodule called `graph`.
                OneInput(network).eval(),
                (example,),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: "images"},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter documents no exception types
        raise WiringError(
            f"{type(network).__name__} cannot be exported as ONNX: {reason_of(error)}"
        ) from error
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content, functools.partial(_compare, content)


def _compare(content: bytes, network: nn.Module, shape: Sequence[int], device: torch.device) -> str:
    try:
        runtime: Any = importlib.import_module("onnxruntime")
    except ModuleNotFoundError:
        return "not checked: pip install onnxruntime to check"
    name = f"onnxruntime {runtime.__version__}"
    try:
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])

        def run(images: Tensor) -> Tensor:
            (logits,) = session.run(None, {"images": images.numpy()})
            return torch.from_numpy(logits)

        difference = largest_difference(run, network, (1, 3), shape, device)
    except Exception as error:  # the runtime has its own exception types
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
        raise WiringError(f"{name} cannot run the network: {reason}") from error
    return checked(name, difference)


def import_packages(*names: str) -> Any:
    """The first of these modules; all must be installed."""
    try:
        first, *_ = [importlib.import_module(name) for name in names]
        return first
    except ModuleNotFoundError as error:
        packages = " ".join(name.partition(".")[0] for name in names)
        raise MissingPackageError(f"export needs {error.name}: pip install {packages}") from error
