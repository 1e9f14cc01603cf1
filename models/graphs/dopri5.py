"""The Dormand–Prince method of order 5 with adaptive steps, for dZ/dt = f(Z) from t = 0 to t = 1.

Steps, error control and interpolation are those of torchdiffeq's `dopri5`, so states and gradients are the
same up to rounding; the tests compare the two. The arithmetic around f is fused: the slopes of a step are the
rows of one matrix, each sum of slopes is one product, and the gradient of a slope is accumulated in place.

Sources: Dormand and Prince, "A family of embedded Runge-Kutta formulae", 1980; interpolation and mid-point
weights: Shampine, "Some Practical Runge-Kutta Formulas", 1986; size of the first step: Hairer, Nørsett and
Wanner, "Solving Ordinary Differential Equations I", section II.4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genutil.exceptions import NotFiniteError
from wirings.node_map_buffer import BackwardPassId

Dynamics = Callable[[Tensor], Tensor]

_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
"""Weights of the slopes in the next stage's states; the last row gives the states at the end of the step."""
_ERROR = (
    35 / 384 - 1951 / 21600,
    0.0,
    500 / 1113 - 22642 / 50085,
    125 / 192 - 451 / 720,
    -2187 / 6784 + 12231 / 42400,
    11 / 84 - 649 / 6300,
    -1 / 60,
)
_MIDDLE = (
    6025192743 / 30085553152 / 2,
    0.0,
    51252292925 / 65400821598 / 2,
    -2691868925 / 45128329728 / 2,
    187940372067 / 1594534317056 / 2,
    -1776094331 / 19743644256 / 2,
    11237099 / 235043384 / 2,
)
_END = (*_STAGES[-1], 0.0)
_NUM_SLOPES = len(_ERROR)
_ORDER = 5
_NO_SOLUTION = "a state of the graph became NaN or infinite while its equation was solved"
_SAFETY, _MAX_FACTOR, _MIN_FACTOR = 0.9, 10.0, 0.2
"""Of the next step's size."""


def solve(dynamics: Dynamics, start: Tensor, rtol: float, atol: float) -> Tensor:
    """The states at t = 1.

    Args:
        dynamics: f, from states to dZ/dt, of the same shape.
        start: states at t = 0.
        rtol, atol: the root mean square of error / (atol + rtol · state) is at most 1 in each step.

    Raises:
        NotFiniteError: states or slopes became NaN or infinite, or no step is small enough for the tolerance.
    """
    layout = _Layout(start)
    states, slope = layout.flat(start), dynamics(start)
    size = _first_step(dynamics, start, slope, rtol, atol)
    time = torch.zeros((), dtype=torch.float64, device=start.device)
    memory = states.new_empty(_NUM_SLOPES, states.numel())
    while True:
        if not (size.isfinite() and time + size > time):
            raise NotFiniteError(_NO_SOLUTION)
        width = size.to(start.dtype)
        if width.requires_grad:  # the gradient of the first step's size reads its slopes again
            slopes = _Slopes(layout, states, torch.empty_like(memory))
        else:
            slopes = _Slopes(layout, states, memory)
        slopes.add(slope)
        for weights in _STAGES:
            next_states = slopes.combine(_constants(weights, start) * width)
            next_slope = dynamics(layout.maps(next_states))
            slopes.add(next_slope)
        ratio = _error_ratio(slopes, width.detach(), states.detach(), next_states.detach(), rtol, atol)
        if ratio.isnan():
            raise NotFiniteError(_NO_SOLUTION)
        if ratio <= 1:
            if time + size >= 1:
                return layout.maps(slopes.combine(_interpolation((1 - time) / size, width, start)))
            time, states, slope = time + size, next_states, next_slope
        size = _next_size(size.detach(), ratio)


class _Layout:
    """Memory format of the states: flat vectors have the same order, so that no map is copied."""

    def __init__(self, states: Tensor) -> None:
        channels_last = states.dim() == 4 and states.is_contiguous(memory_format=torch.channels_last)
        self._order = (0, 2, 3, 1) if channels_last else tuple(range(states.dim()))
        self._inverse_order = (0, 3, 1, 2) if channels_last else self._order
        self._shape = states.permute(self._order).shape

    def flat(self, maps: Tensor) -> Tensor:
        return maps.permute(self._order).reshape(-1)

    def maps(self, flat: Tensor) -> Tensor:
        return flat.view(self._shape).permute(self._inverse_order)


class _Slopes:
    """The slopes of one step, and the states at its start.

    Custom autograd functions, since autograd would store every sum of slopes; see tests/models/test_ode.py.

    Args:
        layout: of the states.
        start: flat states.
        values: memory for the slopes, one in a row.
    """

    def __init__(self, layout: _Layout, start: Tensor, values: Tensor) -> None:
        self.layout, self.start, self.values = layout, start, values
        self.count = 0
        # Autograd's nodes refer to it, so it must not refer to them: the cycle would keep all states alive.
        self._gradient = _SlopeGradient(values)
        # Links the functions in autograd's graph: a slope's backward runs after those of its sums.
        self._token = start.new_empty(0)

    def add(self, slope: Tensor) -> None:
        self.values[self.count] = self.layout.flat(slope.detach())
        self._token = _Add.apply(self._token, self.layout.flat(slope), self._gradient, self.count)
        self.count += 1

    def combine(self, weights: Tensor) -> Tensor:
        """start + Σ weights · slopes, flat, over the slopes added so far."""
        result: Tensor = _Combine.apply(self._token, self.start, weights, self._gradient, self.count)
        return result


class _SlopeGradient:
    """The gradient of a step's slopes in the current backward pass."""

    def __init__(self, slopes: Tensor) -> None:
        self.slopes = slopes
        self._rows: Tensor | None = None
        self._pass = BackwardPassId()

    def rows(self) -> Tensor:
        """Zero at the start of each backward pass."""
        if self._pass.is_new() or self._rows is None:
            self._rows = torch.zeros_like(self.slopes)
        return self._rows

    def take(self, row: int) -> Tensor:
        """The gradient of one slope. That of the first slope is used last: then the memory is released."""
        gradient = self.rows()[row]
        if row == 0:
            self._rows = None
        return gradient


class _Add(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, slope: Tensor, gradient: _SlopeGradient, row: int) -> Tensor:
        ctx.gradient, ctx.row = gradient, row
        return token.new_empty(0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], ctx.gradient.take(ctx.row), None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, token: Tensor, start: Tensor, weights: Tensor, gradient: _SlopeGradient, count: int
    ) -> Tensor:
        ctx.gradient, ctx.count = gradient, count
        ctx.save_for_backward(weights)
        return torch.addmv(start, gradient.slopes[:count].t(), weights)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (weights,), (gradient,), count = ctx.saved_tensors, gradients, ctx.count
        ctx.gradient.rows()[:count].addr_(weights, gradient)
        weights_gradient = ctx.gradient.slopes[:count] @ gradient if ctx.needs_input_grad[2] else None
        return gradient.new_zeros(0), gradient, weights_gradient, None, None


def _constants(weights: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(weights, dtype=torch.float64, device=like.device).to(like.dtype)


def _rms(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()


def _first_step(dynamics: Dynamics, start: Tensor, slope: Tensor, rtol: float, atol: float) -> Tensor:
    scale = atol + start.abs() * rtol
    states_rms, slope_rms = _rms(start / scale), _rms(slope / scale)
    if states_rms < 1e-5 or slope_rms < 1e-5:
        guess = start.new_tensor(1e-6)
    else:
        guess = 0.01 * states_rms / slope_rms
    curvature = _rms((dynamics(start + guess * slope) - slope) / scale) / guess
    if slope_rms <= 1e-15 and curvature <= 1e-15:
        size = torch.maximum(start.new_tensor(1e-6), guess * 1e-3)
    else:
        size = (0.01 / max(slope_rms, curvature)) ** (1 / _ORDER)
    return torch.minimum(100 * guess, size).double()


@torch.no_grad()
def _error_ratio(
    slopes: _Slopes, width: Tensor, before: Tensor, after: Tensor, rtol: float, atol: float
) -> Tensor:
    error = slopes.values.t() @ (_constants(_ERROR, before) * width)
    tolerance = torch.maximum(before.abs(), after.abs()).mul_(rtol).add_(atol)
    return _rms(error.div_(tolerance))


@torch.no_grad()
def _next_size(size: Tensor, ratio: Tensor) -> Tensor:
    if ratio == 0:
        return size * _MAX_FACTOR
    min_factor = 1.0 if ratio < 1 else _MIN_FACTOR
    return size * (_SAFETY / ratio.double() ** (1 / _ORDER)).clamp(min_factor, _MAX_FACTOR)


def _interpolation(fraction: Tensor, width: Tensor, like: Tensor) -> Tensor:
    """Weights of the slopes in the states at a fraction (0 to 1) of the step.

    They come from the polynomial of degree 4 through the states at the start, the middle and the end, with
    the slopes at start and end.
    """
    first, last = (torch.zeros(_NUM_SLOPES, dtype=like.dtype, device=like.device) for _ in range(2))
    first[0], last[-1] = 1, 1
    end, middle = _constants(_END, like), _constants(_MIDDLE, like)
    x = fraction.to(like.dtype)
    return width * (
        x * first
        + x**2 * (last - 4 * first - 5 * end + 16 * middle)
        + x**3 * (5 * first - 3 * last + 14 * end - 32 * middle)
        + x**4 * (2 * (last - first) - 8 * end + 16 * middle)
    )
