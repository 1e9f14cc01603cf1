"""Learning rates of the published schedules at named steps."""

import pytest

from genutil.config.components import ComponentBuilder
from imagenet_sparsity_experiments.options import PUBLISHED_SCHEDULES, parse_options
from trainers.schedules import find_lr_schedule, warmed_up

STEPS = 10
"""Of an epoch."""


def schedule_of(kind, lr, epochs, warmup):
    options = {"--lr-schedule": kind, "--lr": lr, "--epochs": epochs, "--warmup": warmup}
    words = [str(word) for pair in options.items() for word in pair]
    config = parse_options(["imagenet", *words]).config
    schedule = ComponentBuilder(config).build(find_lr_schedule(config.lr_scheduler), steps_per_epoch=STEPS)
    return warmed_up(schedule, config.lr, STEPS, config.warmup)


@pytest.mark.parametrize(
    ("kind", "epoch", "rate"),
    [
        ("step", 0, 0.2), ("step", 29, 0.2), ("step", 30, 0.02), ("step", 60, 0.002), ("step", 89, 0.0002),
        ("linear", 0, 0.2), ("linear", 45, 0.1), ("linear", 89, 0.2 / 90),
        ("cosine", 0, 0.2), ("cosine", 45, 0.1), ("cosine", 30, 0.15), ("cosine", 60, 0.05),
    ],
)  # fmt: skip
def test_without_warm_up(kind, epoch, rate):
    schedule = schedule_of(kind, 0.2, 90, warmup=0)
    for step in (STEPS * epoch, STEPS * epoch + 9):  # the same within an epoch
        assert schedule(step) == pytest.approx(rate)


@pytest.mark.parametrize("kind", PUBLISHED_SCHEDULES)
def test_warm_up_takes_the_place_of_the_first_epochs(kind):
    schedule = schedule_of(kind, 0.256, 100, warmup=5)
    rates = [schedule(STEPS * epoch) for epoch in range(6)]
    assert rates == pytest.approx([0.0512, 0.1024, 0.1536, 0.2048, 0.256, 0.256])


def test_the_published_recipe():
    schedule = schedule_of("cosine", 0.256, 100, warmup=5)
    # 5 + 95 / 2 is not a whole epoch: those beside it are as far above as below one half of the rate.
    assert schedule(STEPS * 52) + schedule(STEPS * 53) == pytest.approx(0.256)
    assert 0 < schedule(STEPS * 99) < 0.0001
    assert schedule_of("step", 0.256, 100, 5)(STEPS * 30) == pytest.approx(0.0256)
