"""Graphs in continuous time: the ordinary differential equation of the states, and its solvers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genutil.config.registries import ADAPTIVE_SOLVERS, FIXED_STEP_SOLVERS
from models.graphs.dopri5 import solve
from models.graphs.edges import EdgeRule
from models.graphs.nodenorm import NodeNorm
from wirings.layout import conv1x1
from wirings.structure import FixedSteps, Update


def euler(dynamics: Update, states: Tensor, size: float) -> Tensor:
    """Increment of the states in a step of Euler's method."""
    return size * dynamics(states)


def midpoint(dynamics: Update, states: Tensor, size: float) -> Tensor:
    """Increment of the states in a step of the midpoint rule, of order 2."""
    return size * dynamics(states + 0.5 * size * dynamics(states))


def rk4(dynamics: Update, states: Tensor, size: float) -> Tensor:
    """Increment of the states in a step of the 3/8 rule, of order 4: the `rk4` of torchdiffeq."""
    first = dynamics(states)
    second = dynamics(states + size / 3 * first)
    third = dynamics(states + size * (second - first / 3))
    fourth = dynamics(states + size * (first - second + third))
    return size / 8 * (first + 3 * (second + third) + fourth)


_STEPS: dict[str, Callable[[Update, Tensor, float], Tensor]] = dict(
    zip(FIXED_STEP_SOLVERS, (euler, midpoint, rk4), strict=True)
)
"""Steps of equal size. They need no synchronization with a GPU, as CUDA graphs require."""


@dataclass(frozen=True)
class Solver:
    """Solves dZ/dt = dynamics(Z): the states at t = 1 from those at t = 0.

    Attributes:
        name: one of ADAPTIVE_SOLVERS or FIXED_STEP_SOLVERS. `dopri5` and the latter are this project's unless
            `adjoint` is set; all others are torchdiffeq's.
        rtol, atol: relative and absolute tolerance of a step of an adaptive solver.
        steps: of a solver with fixed steps.
        adjoint: solve a second equation for the gradient instead of storing the states of all steps: less
            memory, more time, and a gradient that is exact only within the tolerance. Source: Chen et al.,
            "Neural Ordinary Differential Equations", NeurIPS 2018.
    """

    name: str = "dopri5"
    rtol: float = 1e-3
    atol: float = 1e-3
    steps: int = 10
    adjoint: bool = False

    @property
    def waits_for_device(self) -> bool:
        """Whether the steps depend on values on the device, which the host must read."""
        return self.adjoint or self.name in ADAPTIVE_SOLVERS

    def fixed_steps(self) -> FixedSteps | None:
        """The solver without its adjoint, if its steps have equal size; else None."""
        return FixedSteps(_STEPS[self.name], self.steps) if self.name in _STEPS else None

    def __call__(self, dynamics: Update, states: Tensor, parameters: Sequence[Tensor] = ()) -> Tensor:
        """The states at t = 1.

        Args:
            dynamics: from states to dZ/dt.
            states: at t = 0.
            parameters: all that `dynamics` depends on apart from the states; read with `adjoint` only.
        """
        with_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (states, *parameters))
        adjoint = self.adjoint and with_gradient
        if self.name == "dopri5" and not adjoint:
            return solve(dynamics, states, self.rtol, self.atol)
        fixed = self.fixed_steps()
        if fixed is not None and not adjoint:
            return fixed(dynamics, states)
        times = torch.tensor([0.0, 1.0], dtype=states.dtype, device=states.device)
        options: dict[str, Any] = {"method": self.name, "rtol": self.rtol, "atol": self.atol}
        if self.name in _STEPS:
            options["options"] = {"step_size": 1 / self.steps}
        if adjoint:
            options["adjoint_params"] = tuple(parameters)
        import torchdiffeq  # imports scipy, which takes long

        odeint = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint
        path: Tensor = odeint(_AutonomousODE(dynamics), states, times, **options)
        return path[-1]


class _AutonomousODE(nn.Module):
    """Dynamics without dependence on time, with the arguments of torchdiffeq; its adjoint needs a module."""

    def __init__(self, dynamics: Update) -> None:
        super().__init__()
        self.dynamics = dynamics

    def forward(self, _time: Tensor, states: Tensor) -> Tensor:
        return self.dynamics(states)


class Dynamics(nn.Module):
    """dZ/dt of all nodes: norm(graph(conv(ReLU(Z))))."""

    def __init__(self, dim: int, graph: EdgeRule) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.graph = graph
        self.norm = NodeNorm(dim)

    def forward(self, states: Tensor, weight: Tensor) -> Tensor:
        # Not in place: the solver uses the states again.
        derivative: Tensor = self.norm(conv1x1(self.conv(F.relu(states)), weight))
        return derivative


class ODESolve(nn.Module):
    """The states at t = 1 from those at t = 0.

    Attributes:
        num_evaluations: number of evaluations of the dynamics in the last forward and backward pass.
    """

    def __init__(self, odefunc: Dynamics, solver: Solver) -> None:
        super().__init__()
        self.odefunc, self.solver = odefunc, solver
        self.num_evaluations = 0

    def forward(self, states: Tensor) -> Tensor:
        weight = self.odefunc.graph()  # once: the solver calls the dynamics many times
        self.num_evaluations = 0

        def dynamics(states: Tensor) -> Tensor:
            self.num_evaluations += 1
            return self.odefunc(states, weight)  # type: ignore[no-any-return]

        parameters = (weight, *self.odefunc.conv.parameters(), *self.odefunc.norm.parameters())
        return self.solver(dynamics, states, parameters)
