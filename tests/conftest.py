"""Shared by all tests: one thread a worker, and a tiny experiment file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parent.parent

SMALL_GRAPH = {
    "image_size": 16,
    "dim": 80,
    "downsample_dim": 8,
    "feature_dim": 10,
    "layers": 4,
    "prune_rate": 0.9,
}
"""A tiny classifier's sizes."""
SMALL_STAGES = ((8, 12, 1, 1), (12, 16, 2, 2), (16, 16, 2, 4))
"""Those of a MobileNet graph."""

TINY = {
    **SMALL_GRAPH,
    "model": "models.graphs.neuralgraph:StaticNeuralGraph",
    "data": "tests.tiny_data:TinyData",
    "batch_size": 8,
    "num_epochs": 2,
    "lr_scheduler": "cosine",
    "log_interval": 2,
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def small_mobilenet(monkeypatch: pytest.MonkeyPatch) -> None:
    """MobileNet graphs of SMALL_STAGES."""
    monkeypatch.setattr("models.graphs.mobilenetv1like.STAGES", SMALL_STAGES)


@pytest.fixture
def write_app(tmp_path: Path):
    """Writes an experiment file: the tiny one, with some keys changed or (None) left out."""

    def write(name: str = "tiny.yml", **changes: object) -> Path:
        folders = {"save_dir": str(tmp_path / "checkpoints"), "log_dir": str(tmp_path / "runs")}
        keys = {key: value for key, value in {**TINY, **folders, **changes}.items() if value is not None}
        path = tmp_path / name
        path.write_text(yaml.safe_dump(keys))
        return path

    return write
