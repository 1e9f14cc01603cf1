"""What all exports have in common: a network that is ready, silence, and the comparison of logits."""

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
"""Of logits, as a part of the largest."""
Compare = Callable[[nn.Module, Sequence[int], torch.device], str]
"""Runs a file's content beside a network on a device, with images of a shape. Returns a few words about the
difference of the logits; raises WiringError if it is too large.
"""
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


@contextlib.contextmanager
def silence() -> Iterator[None]:
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


def reason_of(error: BaseException) -> str:
    """One line: what the exporter could not do, and in which line of the network's code."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    reason = text.partition("\n")[0] or type(error).__name__
    if "data-dependent" in reason:
        reason = "what its forward method does depends on the values of tensors, which ONNX cannot express"
    place = _WHERE.search(text)
    return f"{reason} ({Path(place[1]).name}, line {place[2]}: {place[3].strip()})" if place else reason


def largest_difference(
    run: Callable[[Tensor], Tensor],
    network: nn.Module,
    counts: Sequence[int],
    shape: Sequence[int],
    device: torch.device,
) -> float:
    """The largest difference of the logits, as a part of the largest logit.

    Args:
        run: computes the logits of a file on the CPU.
        network: the network that was written.
        counts: how many images each comparison has.
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
    """Words about a comparison.

    Raises:
        WiringError: the difference is larger than TOLERANCE, or NaN.
    """
    if not difference <= TOLERANCE:
        raise WiringError(f"{runtime} gives logits that differ by {difference:.1e} of the largest")
    return f"logits in {runtime} differ by {difference:.0e} of the largest"
