"""A network as the content of a `.pt2` file: a program of torch.export, which needs torch alone to run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wirings.errors import WiringError
from wirings.ready import Compare, checked, largest_difference, reason_of, silence
from wirings.wrappers import OneInput


def program_content(network: nn.Module, example: Tensor) -> tuple[bytes, Compare]:
    """The content of a file for torch.export.load: a program for any number of images or, if its operations
    depend on how many there are, for one image.

    Args:
        network: ready_for_export.
        example: two images.

    Returns:
        The content, and what compares its logits.

    Raises:
        WiringError: torch.export cannot export the network, for a reason that is given.
    """
    # torch.export cannot take a network that has a part called `graph` itself.
    part = OneInput(network).eval()
    try:
        with torch.no_grad(), silence():
            program = _exported(part, example)
            file = io.BytesIO()
            torch.export.save(program, file)
    except Exception as error:  # the exporter promises no exception types
        name = type(network).__name__
        raise WiringError(f"{name} cannot be exported by torch.export: {reason_of(error)}") from error
    content = file.getvalue()
    is_dynamic = not isinstance(_input(program).shape[0], int)

    def compare(network: nn.Module, shape: Sequence[int], device: torch.device) -> str:
        with silence():
            run = torch.export.load(io.BytesIO(content)).module().to("cpu")
        difference = largest_difference(run, network, (1, 3) if is_dynamic else (1,), shape, device)
        images = "any number of images" if is_dynamic else "for one image at a time"
        return f"{images}, {checked(f'torch {torch.__version__}', difference)}"

    return content, compare


def _exported(part: nn.Module, example: Tensor) -> Any:
    images = torch.export.Dim("images", min=1)
    try:
        return torch.export.export(part, (example,), dynamic_shapes=({0: images},))
    except Exception:  # the same, for one image: another failure is raised from there
        return torch.export.export(part, (example[:1],))


def _input(program: Any) -> Tensor:
    """The example of the images within the program; a dimension of any size is no number there."""
    (name,) = program.graph_signature.user_inputs
    (node,) = (node for node in program.graph.nodes if node.op == "placeholder" and node.name == name)
    value: Tensor = node.meta["val"]
    return value
