"""Writes checkpoint files as the published code wrote them with torch 1.0."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


class ScalarMeter:
    def __init__(self, name: str, steps: list[Any], values: Any) -> None:
        self.name, self.steps, self.values = name, steps, values


ScalarMeter.__module__ = "train"


def published_content(
    model: nn.Module, optimizer: torch.optim.Optimizer, epoch: int, step: int
) -> dict[str, Any]:
    """The keys of a published checkpoint; `best_val` is a numpy scalar, as an accuracy was there."""
    values = [np.float64(0.5), np.float32(0.25), 1]
    meters = [ScalarMeter("top1_accuracy", [0, 1, 2], values), ScalarMeter("CELoss", [0], np.arange(3.0))]
    return {
        "model": {f"module.{name}": value for name, value in model.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "last_epoch": epoch,
        "best_val": np.float64(12.5),
        "iter": step,
        "meters": ({"top1_accuracy": meters[0]}, {"CELoss": meters[1]}),
    }


def write_published(path: Path, content: dict[str, Any], numpy_names: str = "numpy.core") -> None:
    """Write in torch 1.0's format (no zip file), with numpy's functions under the names of 1.x or 2.x."""
    module = types.ModuleType("train")
    module.ScalarMeter = ScalarMeter  # type: ignore[attr-defined]
    before = sys.modules.get("train")
    sys.modules["train"] = module
    try:
        torch.save(content, path, _use_new_zipfile_serialization=False)
    finally:
        del sys.modules["train"]
        if before is not None:
            sys.modules["train"] = before
    raw = path.read_bytes()
    for name in (b"numpy._core", b"numpy.core"):
        raw = raw.replace(b"c" + name + b".multiarray\n", b"c" + numpy_names.encode() + b".multiarray\n")
    path.write_bytes(raw)
