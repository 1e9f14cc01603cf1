"""Progress within an epoch and within an evaluation."""

import logging
import re

import pytest
import torch
from torch import nn

import trainers.progress
from genutil.distributed.rank_info import RankInfo
from genutil.distributed.world import ALONE
from genutil.signals import StopRequest
from trainers.callbacks import Progress
from trainers.evaluation import evaluate_and_time
from trainers.metrics import Meter
from trainers.precision import Precision
from trainers.progress import BatchProgress
from trainers.trainer import Trainer

CPU = torch.device("cpu")


class Clock:
    """Seconds that pass when a batch is made."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class SlowBatches:
    """Batches of 4 images, each of which takes some seconds."""

    def __init__(self, clock, seconds, count):
        self.clock, self.seconds, self.count = clock, seconds, count

    def __len__(self):
        return self.count

    def batches(self, epoch, start=0):
        for _ in range(start, self.count):
            self.clock.now += self.seconds
            yield torch.ones(4, 3), torch.zeros(4, dtype=torch.long)


@pytest.fixture
def reads(monkeypatch):
    """How often the loss was read from the device."""
    count = []
    own_loss = Meter.own_loss
    monkeypatch.setattr(Meter, "own_loss", lambda self: count.append(1) or own_loss(self))
    return count


def said(caplog):
    return [record.getMessage() for record in caplog.records if ", batch " in record.getMessage()]


def train(clock, val=None, num_epochs=2, log_interval=1000, before=0):
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    trainer = Trainer(
        network, torch.optim.SGD(network.parameters(), lr=0.0), lambda step: 0.0,
        SlowBatches(clock, 12.0, 10), val, num_epochs, (1,), log_interval, [Progress(clock)],
    )  # fmt: skip
    trainer.batch = trainer.step = before
    return trainer


def test_a_long_epoch(caplog, reads):
    """Batches of 12 seconds: a line after 36, 72 and 108 seconds of each epoch's 120."""
    caplog.set_level(logging.INFO)
    train(Clock()).fit()
    lines = said(caplog)
    assert len(lines) == len(reads) == 6
    loss = r"loss \d\.\d{4}, 0\.3 images/s"
    assert re.fullmatch(rf"epoch 1 of 2, batch 3 of 10: {loss}, 0:01:24 left, 0:03:24 in all", lines[0])
    assert re.fullmatch(rf"epoch 1 of 2, batch 9 of 10: {loss}, 0:00:12 left, 0:02:12 in all", lines[2])
    assert re.fullmatch(rf"epoch 2 of 2, batch 3 of 10: {loss}, 0:01:24 left", lines[3])


def test_a_resumed_epoch(caplog):
    caplog.set_level(logging.INFO)
    train(Clock(), num_epochs=1, before=4).fit()
    first = said(caplog)[0]
    assert first.startswith("epoch 1 of 1, batch 7 of 10: ")
    assert first.endswith("0.3 images/s, 0:00:36 left")


def test_a_long_validation(caplog, reads):
    caplog.set_level(logging.INFO)
    clock = Clock()
    train(clock, SlowBatches(clock, 31.0, 3), num_epochs=1).fit()
    lines = [line for line in said(caplog) if "validation" in line]
    assert len(lines) == 3
    assert re.fullmatch(
        r"epoch 1 of 1, validation, batch 1 of 3: loss \d\.\d{4}, 0\.1 images/s, 0:01:02 left", lines[0]
    )
    assert len(reads) == 3 + 3


def test_a_fast_epoch_has_no_such_lines_and_never_waits_for_the_device(caplog, reads):
    caplog.set_level(logging.INFO)
    clock = Clock()
    trainer = train(clock, SlowBatches(clock, 0.1, 20), num_epochs=3, log_interval=1)
    trainer.train.seconds = 0.1
    trainer.fit()
    assert said(caplog) == [] and reads == []


@pytest.mark.parametrize("rank", [0, 1])
def test_a_long_evaluation(caplog, reads, rank, monkeypatch):
    """By the first process alone."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(ALONE, "rank_info", RankInfo(rank=rank))
    clock = Clock()
    network = nn.Linear(3, 2).eval()
    batches = SlowBatches(clock, 20.0, 5)
    evaluate_and_time(network, batches, (1,), Precision(None, CPU), ALONE, StopRequest(), clock)
    lines = said(caplog)
    assert len(lines) == len(reads) == (2 if rank == 0 else 0)
    if lines:
        expected = r"evaluation, batch 2 of 5: loss \d\.\d{4}, 0\.2 images/s, 0:01:00 left"
        assert re.fullmatch(expected, lines[0])


def test_images_of_all_processes_count(caplog):
    caplog.set_level(logging.INFO)
    clock = Clock()
    progress = BatchProgress("evaluation", 2, processes=4, clock=clock)
    clock.now += 40
    progress.advance(10, lambda: 0.5)
    assert said(caplog) == ["evaluation, batch 1 of 2: loss 0.5000, 1.0 images/s, 0:00:40 left"]


class LostTerminal:
    """A terminal that fails after some characters, as one whose connection is lost."""

    encoding = "utf-8"

    def __init__(self, characters):
        self.left, self.text = characters, ""

    def isatty(self):
        return True

    def write(self, text):
        self.left -= len(text)
        if self.left < 0:
            raise OSError(5, "Input/output error")
        self.text += text

    def flush(self):
        pass


@pytest.mark.parametrize("characters", [0, 100, 100_000])
def test_a_terminal_has_a_bar_and_may_go_away(monkeypatch, caplog, reads, characters):
    caplog.set_level(logging.INFO)
    terminal = LostTerminal(characters)
    monkeypatch.setattr(trainers.progress.sys, "stderr", terminal)
    clock = Clock()
    trainer = train(clock, SlowBatches(clock, 31.0, 3), num_epochs=1, log_interval=2)
    trainer.fit()
    assert trainer.epoch == 1
    assert reads == []
    if characters > 1000:
        assert "epoch 1 of 1:" in terminal.text and "epoch 1 of 1, validation:" in terminal.text
        assert said(caplog) == []
