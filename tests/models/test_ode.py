"""Solvers of graphs in continuous time: the project's own against torchdiffeq, adjoint, fixed steps."""

import gc

import pytest
import torch
from torchdiffeq import odeint

from genutil.config.registries import ADAPTIVE_SOLVERS, FIXED_STEP_SOLVERS
from genutil.exceptions import NotFiniteError
from models.graphs.dopri5 import _SlopeGradient, solve
from models.graphs.ode import Solver


def channels_last(*shape):
    return torch.randn(*shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last)


def by_torchdiffeq(change, start, **keys):
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return odeint(lambda _time, states: change(states), start, times, **keys)[-1]


class Problem:
    """dZ/dt = tanh(W Z) · scale over the nodes; counts evaluations."""

    def __init__(self, start, scale):
        self.weight = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)
        self.start, self.scale = start.requires_grad_(), scale
        self.count = 0

    def __call__(self, states):
        self.count += 1
        return torch.tanh(torch.einsum("ij,nj...->ni...", self.weight, states)) * self.scale

    def oracle(self, method="dopri5", rtol=1e-3, atol=1e-3):
        times = torch.tensor([0.0, 1.0], dtype=torch.float64)
        return odeint(lambda _, states: self(states), self.start, times, rtol=rtol, atol=atol, method=method)[
            -1
        ]

    def gradients(self, value):
        return torch.autograd.grad(value.square().sum(), (self.weight, self.start))


STARTS = {
    "matrix": lambda: torch.randn(3, 5, dtype=torch.float64),
    "channels last": lambda: channels_last(2, 5, 3, 4),
    "zeros": lambda: torch.zeros(2, 5, 3, 3, dtype=torch.float64),
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize(
    ("scale", "rtol", "atol"), [(0.01, 1e-3, 1e-3), (4.0, 1e-3, 1e-3), (9.0, 1e-5, 1e-7)]
)
def test_steps_states_and_gradients_are_those_of_torchdiffeq(start, scale, rtol, atol):
    torch.manual_seed(0)
    problem = Problem(start(), scale)
    expected = problem.oracle(rtol=rtol, atol=atol)
    evaluations, problem.count = problem.count, 0
    found = solve(problem, problem.start, rtol, atol)
    assert problem.count == evaluations
    assert torch.allclose(found, expected, atol=1e-12)
    for mine, theirs in zip(problem.gradients(found), problem.gradients(expected), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-10)


def test_a_step_that_is_refused_is_made_again():
    """A fast turn late in the interval, which the first step's size does not foresee."""
    torch.manual_seed(0)

    def change(states):
        return torch.where(states > 0.5, -40 * (states - 0.5) + 1, torch.ones_like(states))

    start = torch.zeros(4, dtype=torch.float64)
    counts = []
    for run in (
        lambda f: solve(f, start, 1e-3, 1e-3),
        lambda f: odeint(lambda _, s: f(s), start, torch.tensor([0.0, 1.0]).double(), rtol=1e-3, atol=1e-3)[
            -1
        ],
    ):
        calls = []
        value = run(lambda states, calls=calls: calls.append(1) or change(states))
        counts.append((len(calls), value))
    assert counts[0][0] == counts[1][0]
    assert (counts[0][0] - 2) % 6 == 0 and counts[0][0] > 20
    assert torch.allclose(counts[0][1], counts[1][1], atol=1e-12)


def test_several_backward_passes():
    torch.manual_seed(0)
    problem = Problem(channels_last(2, 5, 3, 3), 3.0)
    expected = problem.gradients(problem.oracle())
    first, second = (solve(problem, problem.start, 1e-3, 1e-3) for _ in range(2))
    torch.autograd.grad(first.sum(), problem.weight, retain_graph=True)
    found = [torch.autograd.grad(first.square().sum(), (problem.weight, problem.start), retain_graph=True)]
    found += [problem.gradients(second), problem.gradients(first)]
    for gradients in found:
        for mine, theirs in zip(gradients, expected, strict=True):
            assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-10)


def test_all_is_free_after_the_backward_pass():
    """Without waiting for Python's search for cycles, which comes late: a step's states are large."""
    problem = Problem(torch.randn(3, 5, dtype=torch.float64), 3.0)
    gc.collect()
    gc.disable()
    try:
        problem.gradients(solve(problem, problem.start, 1e-3, 1e-3))
        assert not [thing for thing in gc.get_objects() if type(thing) is _SlopeGradient]
    finally:
        gc.enable()


def test_without_gradients_and_in_inference_mode():
    problem = Problem(torch.randn(3, 5, dtype=torch.float64), 3.0)
    expected = problem.oracle().detach()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.allclose(solve(problem, problem.start, 1e-3, 1e-3), expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_states_that_are_not_finite_are_refused(value):
    start = torch.ones(3, dtype=torch.float64)
    with pytest.raises(NotFiniteError, match="a state of the graph became NaN or infinite"):
        solve(lambda states: states * value, start, 1e-3, 1e-3)
    with pytest.raises(NotFiniteError, match="a state of the graph became NaN or infinite"):
        solve(lambda states: torch.exp(1e3 * states * states), start, 1e-3, 1e-3)


def test_states_that_run_off_to_infinity_are_refused():
    """dZ/dt = 100 Z² has no solution beyond t = 0.01: the steps become ever smaller there."""
    start = torch.ones(3, dtype=torch.float64)
    with pytest.raises(NotFiniteError, match="a state of the graph became NaN or infinite"):
        solve(lambda states: 100 * states * states, start, 1e-3, 1e-3)


@pytest.mark.parametrize("name", [*ADAPTIVE_SOLVERS, *FIXED_STEP_SOLVERS])
def test_every_solver_solves(name):
    torch.manual_seed(0)
    problem = Problem(channels_last(2, 5, 3, 3), 1.0)
    exact = problem.oracle("dopri8", 1e-9, 1e-9)
    solver = Solver(name, rtol=1e-6, atol=1e-6, steps=400)
    assert torch.allclose(solver(problem, problem.start), exact, atol=3e-3)


def test_fixed_steps_are_counted():
    problem = Problem(torch.randn(3, 5, dtype=torch.float64), 1.0)
    Solver("rk4", steps=7)(problem, problem.start)
    assert problem.count == 4 * 7


def test_the_adjoint_has_nearly_the_gradient_and_keeps_no_states():
    torch.manual_seed(0)
    problem = Problem(channels_last(2, 5, 3, 3), 2.0)
    expected = problem.gradients(solve(problem, problem.start, 1e-6, 1e-6))
    problem.count = 0
    value = Solver(rtol=1e-6, atol=1e-6, adjoint=True)(problem, problem.start, [problem.weight])
    forward = problem.count
    found = problem.gradients(value)
    assert problem.count > 1.5 * forward  # the second equation
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine - theirs).abs().max() < 1e-3 * theirs.abs().max()


@pytest.mark.parametrize("name", FIXED_STEP_SOLVERS)
def test_fixed_steps_are_those_of_torchdiffeq(name):
    """States and gradients, in float64 within rounding."""
    problem = Problem(torch.randn(2, 5, 3, dtype=torch.float64), 2.0)
    found = Solver(name, steps=7)(problem, problem.start)
    keys = {"method": name, "options": {"step_size": 1 / 7}}
    expected = by_torchdiffeq(problem, problem.start, **keys)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    inputs = [problem.start, problem.weight]
    gradients = (torch.autograd.grad(states.square().sum(), inputs) for states in (found, expected))
    for own, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-11, atol=1e-11)


def test_which_solvers_wait_for_the_device():
    assert not any(Solver(name).waits_for_device for name in FIXED_STEP_SOLVERS)
    assert all(Solver(name).waits_for_device for name in ADAPTIVE_SOLVERS)
    assert Solver("rk4", adjoint=True).waits_for_device
