"""Learning rates at named steps."""

import math

import pytest

from genutil.config.registries import SCHEDULES
from genutil.errors import ConfigError
from trainers.schedules import (
    cosine,
    exp_decaying,
    find_schedule,
    linear_decaying,
    multistep,
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


def test_registry():
    for name in SCHEDULES:
        assert find_schedule(name).__name__ == name
    assert find_schedule("math:sqrt") is math.sqrt
    with pytest.raises(ConfigError, match="lr_scheduler: module math has no sqrtt; did you mean sqrt"):
        find_schedule("math:sqrtt")
