"""Graphs in continuous time: the change of all states, and what solves its equation."""

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


def euler(change: Update, states: Tensor, size: float) -> Tensor:
    """Euler's method: what is added to the states in a step."""
    return size * change(states)


def midpoint(change: Update, states: Tensor, size: float) -> Tensor:
    """The midpoint rule, of order 2."""
    return size * change(states + 0.5 * size * change(states))


def rk4(change: Update, states: Tensor, size: float) -> Tensor:
    """The 3/8 rule of Runge and Kutta, of order 4: the `rk4` of torchdiffeq."""
    first = change(states)
    second = change(states + size / 3 * first)
    third = change(states + size * (second - first / 3))
    fourth = change(states + size * (first - second + third))
    return size / 8 * (first + 3 * (second + third) + fourth)


_STEPS: dict[str, Callable[[Update, Tensor, float], Tensor]] = dict(
    zip(FIXED_STEP_SOLVERS, (euler, midpoint, rk4), strict=True)
)
"""Steps of equal size. They never wait for a GPU, so that they can be part of a CUDA graph."""


@dataclass(frozen=True)
class Solver:
    """Gives the states at t = 1 from those at t = 0, where dZ/dt = change(Z).

    Attributes:
        name: of ADAPTIVE_SOLVERS or FIXED_STEP_SOLVERS. `dopri5` and the latter are this project's unless
            `adjoint` is set; all others are torchdiffeq's.
        rtol, atol: relative and absolute tolerance of a step of an adaptive solver.
        steps: of a solver with fixed steps.
        adjoint: solve a second equation for the gradient in place of keeping the states of all steps: less
            memory, more time, and a gradient that is exact within the tolerance only. Source: Chen et al.,
            "Neural Ordinary Differential Equations", NeurIPS 2018.
    """

    name: str = "dopri5"
    rtol: float = 1e-3
    atol: float = 1e-3
    steps: int = 10
    adjoint: bool = False

    @property
    def waits_for_device(self) -> bool:
        """Whether a solution reads from the device how to go on."""
        return self.adjoint or self.name in ADAPTIVE_SOLVERS

    def fixed_steps(self) -> FixedSteps | None:
        """The solver without its adjoint, where its steps are of equal size."""
        return FixedSteps(_STEPS[self.name], self.steps) if self.name in _STEPS else None

    def __call__(self, change: Update, states: Tensor, parameters: Sequence[Tensor] = ()) -> Tensor:
        """`parameters`: what `change` depends on beside the states; read with `adjoint` only."""
        with_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (states, *parameters))
        adjoint = self.adjoint and with_gradient
        if self.name == "dopri5" and not adjoint:
            return solve(change, states, self.rtol, self.atol)
        fixed = self.fixed_steps()
        if fixed is not None and not adjoint:
            return fixed(change, states)
        times = torch.tensor([0.0, 1.0], dtype=states.dtype, device=states.device)
        keys: dict[str, Any] = {"method": self.name, "rtol": self.rtol, "atol": self.atol}
        if self.name in _STEPS:
            keys["options"] = {"step_size": 1 / self.steps}
        if adjoint:
            keys["adjoint_params"] = tuple(parameters)
        import torchdiffeq  # imports scipy, which takes long

        odeint = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint
        path: Tensor = odeint(_OfStates(change), states, times, **keys)
        return path[-1]


class _OfStates(nn.Module):
    """A change that does not depend on time, as torchdiffeq calls it; a module, as its adjoint wants it."""

    def __init__(self, change: Update) -> None:
        super().__init__()
        self.change = change

    def forward(self, _time: Tensor, states: Tensor) -> Tensor:
        return self.change(states)


class Dynamics(nn.Module):
    """dZ/dt of all nodes: norm(graph(conv(ReLU(Z))))."""

    def __init__(self, dim: int, graph: EdgeRule) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.graph = graph
        self.norm = NodeNorm(dim)

    def forward(self, states: Tensor, weight: Tensor) -> Tensor:
        # Not in place: the solver still needs the states it hands over.
        change: Tensor = self.norm(conv1x1(self.conv(F.relu(states)), weight))
        return change


class ODESolve(nn.Module):
    """States at t = 1 of the dynamics that start from the given states at t = 0.

    Attributes:
        num_evaluations: how often the last solution evaluated the dynamics, its gradient included.
    """

    def __init__(self, odefunc: Dynamics, solver: Solver) -> None:
        super().__init__()
        self.odefunc, self.solver = odefunc, solver
        self.num_evaluations = 0

    def forward(self, states: Tensor) -> Tensor:
        weight = self.odefunc.graph()  # once: the solver calls the dynamics many times
        self.num_evaluations = 0

        def change(states: Tensor) -> Tensor:
            self.num_evaluations += 1
            return self.odefunc(states, weight)  # type: ignore[no-any-return]

        others = [*self.odefunc.conv.parameters(), *self.odefunc.norm.parameters()]
        return self.solver(change, states, (weight, *others))
