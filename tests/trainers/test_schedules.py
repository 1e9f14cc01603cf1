"""Learning rates at named steps."""

import math

import pytest

from genutil.config.registries import LR_SCHEDULES
from genutil.exceptions import ConfigError
from trainers.schedules import (
    cosine,
    epoch_cosine,
    epoch_linear,
    exp_decaying,
    find_lr_schedule,
    linear_decaying,
    multistep,
    warmed_up,
)


def test_multistep_falls_at_the_milestones_epochs():
    rate = multistep(0.1, steps_per_epoch=98, multistep_lr_milestones=[80, 120], multistep_lr_gamma=0.1)
    assert rate(0) == rate(80 * 98 - 1) == 0.1
    assert rate(80 * 98) == pytest.approx(0.01)
    assert rate(120 * 98 - 1) == pytest.approx(0.01)
    assert rate(120 * 98) == pytest.approx(0.001)


def test_cosine_counts_updates_from_one():
    rate = cosine(0.1, steps_per_epoch=5, num_epochs=4)
    for update in range(1, 21):
        assert rate(update - 1) == pytest.approx(0.05 * (1 + math.cos(math.pi * update / 20)))
    assert rate(19) == pytest.approx(0, abs=1e-15)


def test_linear_lowers_by_the_same_amount():
    rate = linear_decaying(0.1, steps_per_epoch=5, num_epochs=4)
    falls = [rate(step) - rate(step + 1) for step in range(19)]
    assert falls == pytest.approx([0.1 / 20] * 19)
    assert rate(0) == pytest.approx(0.1 - 0.1 / 20)


def test_exponential_falls_by_epoch():
    rate = exp_decaying(0.1, steps_per_epoch=5, exp_decaying_lr_gamma=0.9)
    assert rate(4) == 0.1
    assert rate(5) == pytest.approx(0.09)
    assert rate(14) == pytest.approx(0.081)


def test_rates_that_are_constant_within_an_epoch():
    for schedule, half in ((epoch_cosine, 0.05), (epoch_linear, 0.05)):
        rate = schedule(0.1, steps_per_epoch=5, num_epochs=4)
        assert [rate(step) for step in range(5)] == [0.1] * 5
        assert rate(10) == rate(14) == pytest.approx(half)


@pytest.mark.parametrize("schedule", [cosine, linear_decaying, epoch_cosine, epoch_linear])
def test_schedules_begin_after_the_warm_up(schedule):
    whole = schedule(0.1, steps_per_epoch=5, num_epochs=4)
    rate = warmed_up(schedule(0.1, steps_per_epoch=5, num_epochs=6, warmup=2), 0.1, 5, 2)
    assert [rate(step) for step in (0, 4, 5, 9)] == pytest.approx([0.05, 0.05, 0.1, 0.1])
    assert [rate(10 + step) for step in range(20)] == [whole(step) for step in range(20)]


def test_milestones_count_the_warm_up():
    rate = warmed_up(multistep(0.1, 5, [2, 3], 0.1), 0.1, steps_per_epoch=5, warmup=1)
    assert [rate(5 * epoch) for epoch in range(4)] == pytest.approx([0.1, 0.1, 0.01, 0.001])


def test_registry():
    for name in LR_SCHEDULES:
        assert find_lr_schedule(name).__name__ == name
    assert find_lr_schedule("math:sqrt") is math.sqrt
    with pytest.raises(ConfigError, match="lr_scheduler: module math has no sqrtt; did you mean sqrt"):
        find_lr_schedule("math:sqrtt")
