"""Names of optimizers, learning-rate schedules and ODE solvers that experiments may use; needs no torch.

Edge rules, budgets and engines have their registries in `wirings`.
"""

from __future__ import annotations

OPTIMIZERS = {"sgd": "trainers.optimizers:sgd"}
LR_SCHEDULES = {
    "multistep": "trainers.schedules:multistep",
    "cosine": "trainers.schedules:cosine",
    "linear_decaying": "trainers.schedules:linear_decaying",
    "exp_decaying": "trainers.schedules:exp_decaying",
    "epoch_cosine": "trainers.schedules:epoch_cosine",
    "epoch_linear": "trainers.schedules:epoch_linear",
}
"""Functions by name, as `module:function`, in the order that `--help` shows."""
ADAPTIVE_SOLVERS = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
FIXED_STEP_SOLVERS = ("euler", "midpoint", "rk4")
