"""Checks of keys that contradict each other; each message says how to fix it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from genutil.config.problems import Problem, origin_of
from genutil.config.registries import FIXED_STEP_SOLVERS
from genutil.config.schema import Config
from wirings.rules import RULES, has_fixed_wiring, options_of


class Check(NamedTuple):
    """`keys` contradict each other if `fails` returns true; the message begins with the first one."""

    keys: tuple[str, ...]
    fails: Callable[[Config], bool]
    message: str | Callable[[], str]


_RANDOM_IMAGES = "data.synthetic:"
"""Data for measuring the time of an evaluation, which needs no checkpoint."""


def _default(key: str) -> object:
    return Config.model_fields[key].default


def _is_option_without_effect(config: Config, key: str) -> bool:
    """Whether a key is set that is an option of other rules, not of that of the experiment."""
    is_set = bool(getattr(config, key) != _default(key))
    return is_set and ":" not in config.graph and key not in options_of(config.graph)


def _name_rules_with(key: str) -> str:
    names = [f"graph: {rule}" for rule in RULES if key in options_of(rule)]
    return f"has no effect with this graph; remove it, or choose {' or '.join(names)}"


CHECKS = (
    Check(
        ("evaluate",),
        lambda c: c.evaluate and c.resume is None and not c.data.startswith(_RANDOM_IMAGES),
        "evaluates a checkpoint; name it with --resume FILE",
    ),
    Check(
        ("export",),
        lambda c: c.export is not None and c.resume is None,
        "writes a trained network; name its checkpoint with --resume FILE",
    ),
    Check(
        ("export", "evaluate"),
        lambda c: c.export is not None and c.evaluate,
        "writes a file instead of an evaluation; choose one of them",
    ),
    Check(
        ("fast_eval",),
        lambda c: c.fast_eval and not c.evaluate,
        "removes dead nodes for evaluation only; add --evaluate --resume FILE",
    ),
    Check(
        ("use_dgl",),
        lambda c: c.use_dgl and not c.fast_eval,
        "executes the network of fast_eval as a graph; add --evaluate --fast_eval",
    ),
    Check(
        ("use_init",),
        lambda c: c.use_init is not None and c.use_graph is None,
        "gives weights to a wiring from another file; name that file with use_graph",
    ),
    Check(
        ("use_init", "graph"),
        lambda c: c.use_init is not None and ":" not in c.graph and not has_fixed_wiring(c.graph),
        "would change the wiring of use_graph, since this graph has no fixed wiring; choose graph: fine_tune",
    ),
    Check(
        ("engine",),
        lambda c: c.engine != "auto" and not c.fast_eval,
        "selects the engine of fast_eval; add --evaluate --fast_eval",
    ),
    Check(
        ("bf16", "engine"),
        lambda c: c.bf16 and (not c.fast_eval or c.use_dgl or c.engine not in ("auto", "native", "triton")),
        "works with the engines native and triton; give --fast_eval, and --engine native, triton or none",
    ),
    Check(
        ("compile", "fast_eval"),
        lambda c: c.compile and c.fast_eval,
        "compiles the original network, which fast_eval does not use; choose one of them",
    ),
    Check(
        ("amp", "fast_eval"),
        lambda c: c.amp is not None and c.fast_eval,
        "has no effect with the engines of fast_eval, which compute in float32; remove it",
    ),
    Check(
        ("use_dgl", "engine"),
        lambda c: c.use_dgl and c.engine not in ("auto", "dgl"),
        "means --engine dgl; choose one of them",
    ),
    Check(
        ("rho", "graph"),
        lambda c: _is_option_without_effect(c, "rho"),
        lambda: _name_rules_with("rho"),
    ),
    Check(
        ("td_magnitude", "graph"),
        lambda c: _is_option_without_effect(c, "td_magnitude"),
        lambda: _name_rules_with("td_magnitude"),
    ),
    Check(
        ("ode_steps", "ode_solver"),
        lambda c: c.ode_steps is not None and c.ode_solver not in FIXED_STEP_SOLVERS,
        "counts the steps of euler, midpoint and rk4; this solver chooses its own (ode_rtol, ode_atol)",
    ),
    Check(
        ("ode_rtol", "ode_solver"),
        lambda c: c.ode_rtol != _default("ode_rtol") and c.ode_solver in FIXED_STEP_SOLVERS,
        "has no effect with a fixed-step solver; set ode_steps",
    ),
    Check(
        ("ode_atol", "ode_solver"),
        lambda c: c.ode_atol != _default("ode_atol") and c.ode_solver in FIXED_STEP_SOLVERS,
        "has no effect with a fixed-step solver; set ode_steps",
    ),
    Check(
        ("processes", "gpus"),
        lambda c: c.processes is not None and bool(c.gpus),
        "run on the CPU; on GPUs there is one process for each of --gpus; choose one of them",
    ),
    Check(
        ("cuda_graph", "accumulate"),
        lambda c: c.cuda_graph and c.accumulate > 1,
        "captures one step without microbatches; remove accumulate",
    ),
    Check(
        ("sync_bn", "compile"),
        lambda c: c.sync_bn and c.compile,
        "communicates within the forward pass, which cannot be compiled; choose one of them",
    ),
    Check(
        ("cuda_graph", "mixup"),
        lambda c: c.cuda_graph and c.mixup > 0,
        "repeats one captured step, but mixup draws new pairs in each step; choose one of them",
    ),
    Check(
        ("channels_last", "fast_eval"),
        lambda c: c.channels_last and c.fast_eval,
        "has no effect with the engines of fast_eval; remove it",
    ),
    Check(
        ("skip_corrupt", "data_backend"),
        lambda c: c.skip_corrupt and c.data_backend != "pytorch",
        "works only with the data backend pytorch; choose that, or remove it",
    ),
    Check(
        ("loss_scale", "amp"),
        lambda c: c.loss_scale is not None and c.amp != "fp16",
        "works only with fp16; add amp: fp16, or remove it",
    ),
    Check(
        ("nestorov", "momentum"),
        lambda c: c.nestorov and not c.momentum and c.optimizer == "sgd",
        "needs a momentum greater than 0",
    ),
    Check(
        ("warmup", "num_epochs"),
        lambda c: c.warmup >= c.num_epochs,
        "must be less than num_epochs, the length of the training",
    ),
    Check(
        ("start_epoch", "num_epochs"),
        lambda c: c.start_epoch >= c.num_epochs,
        "must be less than num_epochs, the length of the training",
    ),
    Check(
        ("seeds", "checkpoint_dir"),
        lambda c: bool(c.seeds) and c.checkpoint_dir is not None and "{seed}" not in c.checkpoint_dir,
        "would write all runs' checkpoints to one folder; put {seed} into checkpoint_dir",
    ),
    Check(
        ("seeds", "resume"),
        lambda c: bool(c.seeds) and c.resume is not None,
        "resumes each of its runs automatically; remove --resume",
    ),
    Check(
        ("seeds",),
        lambda c: c.seeds is not None and (not c.seeds or len(set(c.seeds)) < len(c.seeds)),
        "must be one or more different numbers",
    ),
    Check(
        ("record_interval", "record_wiring"),
        lambda c: c.record_interval is not None and not c.record_wiring,
        "counts the steps between two states of a recorded wiring; add record_wiring: true",
    ),
    Check(
        ("topk", "output_size"),
        lambda c: max(c.topk) > c.output_size,
        "must not exceed output_size, the number of classes",
    ),
    Check(
        ("multistep_lr_milestones",),
        lambda c: sorted(set(c.multistep_lr_milestones)) != c.multistep_lr_milestones,
        "must be different epochs in ascending order, such as [80, 120]",
    ),
)


def failed_checks(config: Config, origins: Mapping[str, str]) -> Iterator[Problem]:
    """One problem for each check that fails."""
    for check in CHECKS:
        if check.fails(config):
            message = check.message if isinstance(check.message, str) else check.message()
            yield Problem(check.keys[0], message, origin_of(check.keys, origins))
