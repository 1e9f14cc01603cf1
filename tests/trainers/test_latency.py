"""Times of forward passes: a warm-up first, then the median over the batches of full size."""

import torch
from torch import nn

from trainers import latency
from trainers.latency import TimedModel


class Counted(nn.Identity):
    calls = 0

    def forward(self, images):
        self.calls += 1
        return images


def test_median_over_full_batches(monkeypatch):
    clock = iter([0.0, 8.0, 10.0, 14.0, 20.0, 26.0, 30.0, 130.0])
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(clock))
    network = Counted().eval()
    timed = TimedModel(network, torch.device("cpu"))
    assert not timed.training
    for size in (4, 4, 4, 1):
        assert timed(torch.zeros(size, 3)).shape == (size, 3)
    assert network.calls == 5
    assert timed.num_images == 13
    assert timed.seconds_per_image() == 6 / 4
