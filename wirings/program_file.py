"""Content of a `.pt2` file of a network: a program of torch.export, which only needs torch to run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wirings.errors import WiringError
from wirings.ready import Compare, checked, largest_difference, reason_of, suppress_output
from wirings.wrappers import OneInput


def program_content(network: nn.Module, example: Tensor) -> tuple[bytes, Compare]:
    """The content of a file for torch.export.load: a program for any number of images or, if its operations
    depend on their number, for one image.

    Args:
        network: ready_for_export.
        example: two images.

    Returns:
        The content, and a function that compares its logits.

    Raises:
        WiringError: torch.export cannot export the network; the message gives the reason.
    """
    # torch.export cannot export a network with a submodule called `graph`.
    wrapper = OneInput(network).eval()
    try:
        with torch.no_grad(), suppress_output():
            program = _exported(wrapper, example)
            file = io.BytesIO()
            torch.export.save(program, file)
    except Exception as error:  # the exporter documents no exception types
        name = type(network).__name__
        raise WiringError(f"{name} cannot be exported by torch.export: {reason_of(error)}") from error
    content = file.getvalue()
    is_dynamic = not isinstance(_input(program).shape[0], int)

    def compare(network: nn.Module, shape: Sequence[int], device: torch.device) -> str:
        with suppress_output():
            run = torch.export.load(io.BytesIO(content)).module().to("cpu")
        difference = largest_difference(run, network, (1, 3) if is_dynamic else (1,), shape, device)
        images = "any number of images" if is_dynamic else "for one image at a time"
        return f"{images}, {checked(f'torch {torch.__version__}', difference)}"

    return content, compare


def _exported(wrapper: nn.Module, example: Tensor) -> Any:
    images = torch.export.Dim("images", min=1)
    try:
        return torch.export.export(wrapper, (example,), dynamic_shapes=({0: images},))
    except Exception:  # for one image; that raises if the network cannot be exported at all
        return torch.export.export(wrapper, (example[:1],))


def _input(program: Any) -> Tensor:
    """The program's example of the images, in which a dynamic dimension is not a number."""
    (name,) = program.graph_signature.user_inputs
    (node,) = (node for node in program.graph.nodes if node.op == "placeholder" and node.name == name)
    value: Tensor = node.meta["val"]
    return value
