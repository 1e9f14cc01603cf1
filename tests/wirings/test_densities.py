"""Density schedules start at the first density, end at the budget exactly, and name wrong options."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from wirings.densities import DENSITY_SCHEDULES, Constant, Cubic, Cyclic, Steps, find_density_schedule
from wirings.errors import WiringError


def counts(schedule, budget=100, potential=1000, steps=10):
    return [schedule.num_edges(step / steps, budget, potential) for step in range(steps + 1)]


def test_cubic_is_the_published_formula():
    schedule = Cubic(start=0.2, end=0.7)
    expected = [100 + round(900 * (1 - max(0, step / 10 - 0.2) / 0.5) ** 3) for step in range(7)]
    assert counts(schedule) == [*expected, 100, 100, 100, 100]
    assert counts(Cubic(first_density=0.5, end=1.0))[:2] == [500, 100 + round(400 * 0.9**3)]


def test_steps_drop_by_equal_numbers():
    assert counts(Steps(start=0.1, end=0.7, drops=3)) == [1000] * 3 + [700] * 2 + [400] * 2 + [100] * 4
    assert counts(Steps(start=0.5, end=0.5, drops=1)) == [1000] * 5 + [100] * 6


def test_cycles_reach_the_budget_and_come_back():
    numbers = counts(Cyclic(end=1.0, cycles=2), steps=9)
    assert numbers[0] == numbers[6] == 1000
    assert numbers[3] == numbers[9] == 100


def test_constant():
    assert counts(Constant()) == [100] * 11


@given(
    name=st.sampled_from(sorted(DENSITY_SCHEDULES)),
    first=st.floats(0, 1),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    potential=st.integers(0, 500),
    data=st.data(),
)
@examples(100)
def test_any_schedule_stays_within_its_limits_and_ends_at_the_budget(name, first, ends, potential, data):
    budget = data.draw(st.integers(0, potential))
    schedule = DENSITY_SCHEDULES[name](first, *ends)
    for progress in (0.0, *data.draw(st.lists(st.floats(0, 1), max_size=5)), 1.0):
        number = schedule.num_edges(progress, budget, potential)
        assert budget <= number <= max(budget, round(first * potential))
        if progress >= ends[1]:
            assert number == budget


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cubik", {}, "did you mean cubic"),
        ("cubic", {"ends": 1.0}, "has no option ends; it has first_density, start, end; did you mean end"),
        ("cubic", {"end": 1.5}, "start and end must be 0 <= start <= end <= 1, got start 0.0, end 1.5"),
        ("cubic", {"first_density": -1}, "first_density must be within 0..1, got -1"),
        ("steps", {"drops": 0}, "drops must be at least 1, got 0"),
        ("cyclic", {"cycles": 0}, "cycles must be at least 1, got 0"),
    ],
)
def test_wrong_schedules(name, options, message):
    with pytest.raises(WiringError, match=None) as error:
        find_density_schedule(name, **options)
    assert message in str(error.value)
