"""A finished training of a tiny network, whose files are changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from torch import nn

import runner
from genutil.config.components import ComponentBuilder
from models import build_model
from tests.conftest import TINY
from tests.tiny_data import TinyData
from trainers.batches import as_batches
from trainers.optimizers import find_optimizer
from trainers.schedules import find_lr_schedule
from trainers.trainer import Trainer


def train_tiny(folder: Path, **changes: Any) -> Path:
    """Train in `folder`, which then holds `tiny.yml`, `checkpoints/` and `runs/`; returns it."""
    app = folder / "tiny.yml"
    app.write_text(yaml.safe_dump({**TINY, "num_epochs": 2, **changes}))
    places = ["--save_dir", str(folder / "checkpoints"), "--log_dir", str(folder / "runs")]
    assert runner.main([f"app:{app}", *places]) == 0
    return folder


def make_trainer(parts: ComponentBuilder) -> tuple[nn.Module, Trainer]:
    """A network and its training, not yet started."""
    model = build_model(parts.config, parts)
    data = TinyData(8, 16, 10, 0)
    train = as_batches(data.train)
    optimizer = parts.build(find_optimizer(parts.config.optimizer), parameters=model.parameters())
    schedule = parts.build(find_lr_schedule(parts.config.lr_scheduler), steps_per_epoch=len(train))
    trainer = Trainer(
        model, optimizer, schedule, train, as_batches(data.val), parts.config.num_epochs, parts.config.topk,
        parts.config.log_interval,
    )  # fmt: skip
    return model, trainer
