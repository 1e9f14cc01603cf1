"""Learning rates at named steps."""

import pytest

from imagenet_sparsity_experiments.schedules import SCHEDULES, find_schedule

STEPS = 10
"""Of an epoch."""


@pytest.mark.parametrize(
    ("kind", "epoch", "rate"),
    [
        ("step", 0, 0.2), ("step", 29, 0.2), ("step", 30, 0.02), ("step", 60, 0.002), ("step", 89, 0.0002),
        ("linear", 0, 0.2), ("linear", 45, 0.1), ("linear", 89, 0.2 / 90),
        ("cosine", 0, 0.2), ("cosine", 45, 0.1), ("cosine", 30, 0.15), ("cosine", 60, 0.05),
    ],
)  # fmt: skip
def test_without_warm_up(kind, epoch, rate):
    schedule = find_schedule(kind, 0.2, STEPS, 90, warmup=0)
    for step in (STEPS * epoch, STEPS * epoch + 9):  # the same within an epoch
        assert schedule(step) == pytest.approx(rate)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_warm_up_takes_the_place_of_the_first_epochs(kind):
    schedule = find_schedule(kind, 0.256, STEPS, 100, warmup=5)
    rates = [schedule(STEPS * epoch) for epoch in range(6)]
    assert rates == pytest.approx([0.0512, 0.1024, 0.1536, 0.2048, 0.256, 0.256])


def test_the_published_recipe():
    schedule = find_schedule("cosine", 0.256, STEPS, 100, warmup=5)
    # 5 + 95 / 2 is no whole epoch: those beside it are as far above as below one half of the rate.
    assert schedule(STEPS * 52) + schedule(STEPS * 53) == pytest.approx(0.256)
    assert 0 < schedule(STEPS * 99) < 0.0001
    assert find_schedule("step", 0.256, STEPS, 100, 5)(STEPS * 30) == pytest.approx(0.0256)
