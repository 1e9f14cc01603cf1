"""Common functions of exports: preparation of the network, suppressed output, comparison of logits."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from wirings.blocks import read_blocks
from wirings.errors import WiringError
from wirings.rules.base import EdgeRule

TOLERANCE = 1e-4
"""Of logits, as a fraction of the largest."""
Compare = Callable[[nn.Module, Sequence[int], torch.device], str]
"""Compares a file's logits with those of a network on a device, for images of a shape. Returns a description
of the difference; raises WiringError if it is too large.
"""
_LOCATION = re.compile(r'call raised this error:\s+File "(.+)", line (\d+), in \w+\n\s+(.+)')


@contextlib.contextmanager
def ready_for_export(model: nn.Module) -> Iterator[None]:
    """Context in which a network is in evaluation mode, and its edge rules return constant weights."""
    modes = [(module, module.training) for module in model.modules()]
    rules = [module for module in model.modules() if isinstance(module, EdgeRule)]
    model.eval()
    try:
        with torch.no_grad():
            for rule in rules:
                _freeze_weights(rule)
            yield
    finally:
        for rule in rules:
            rule.__dict__.pop("forward", None)
            rule.__dict__.pop("blocks", None)
        for module, training in modes:
            module.training = training


def _freeze_weights(rule: EdgeRule) -> None:
    weights = rule().clone()
    rule.forward = lambda: weights  # type: ignore[method-assign]
    rule.blocks = lambda pieces: read_blocks(weights, pieces)  # type: ignore[method-assign]


@contextlib.contextmanager
def suppress_output() -> Iterator[None]:
    """Context without logging and printing: the exporter prints each constant, and whole programs."""
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


def reason_of(error: BaseException) -> str:
    """Reason of an exporter's failure, with the line of the network's code, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    reason = text.partition("\n")[0] or type(error).__name__
    if "data-dependent" in reason:
        reason = "its forward method depends on the values of tensors, which ONNX cannot express"
    match = _LOCATION.search(text)
    return f"{reason} ({Path(match[1]).name}, line {match[2]}: {match[3].strip()})" if match else reason


def largest_difference(
    run: Callable[[Tensor], Tensor],
    network: nn.Module,
    counts: Sequence[int],
    shape: Sequence[int],
    device: torch.device,
) -> float:
    """The largest difference of the logits, as a fraction of the largest logit.

    Args:
        run: computes the logits of a file on the CPU.
        network: the network that was written.
        counts: number of images of each comparison.
        shape: of an image.
        device: of the network.
    """
    differences = []
    for count in counts:
        images = torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            expected = network(images.to(device)).cpu()
        error = (run(images) - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
        differences.append(float(error))
    return max(differences, key=lambda error: (error != error, error))  # NaN is the largest


def checked(runtime: str, difference: float) -> str:
    """Description of a comparison.

    Raises:
        WiringError: the difference is larger than TOLERANCE, or NaN.
    """
    if not difference <= TOLERANCE:
        raise WiringError(f"logits in {runtime} differ by {difference:.1e} of the largest")
    return f"logits in {runtime} differ by {difference:.0e} of the largest"
