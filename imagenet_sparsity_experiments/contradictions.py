"""Values of options that are out of range, and options that do not go together, each with the mend."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from genutil.config.problems import Problem, refuse
from imagenet_sparsity_experiments.configurations import find_configuration
from imagenet_sparsity_experiments.names import checkpoint_names

if TYPE_CHECKING:
    from imagenet_sparsity_experiments.options import Options

_POSITIVE = (
    "image_size", "num_classes", "epochs", "batch_size", "lr", "print_freq", "timeout",
)  # fmt: skip
_NOT_NEGATIVE = ("workers", "start_epoch", "warmup", "mixup", "weight_decay", "seed")
_OF_TRAINING = (
    "epochs", "start_epoch", "optimizer_batch_size", "lr", "lr_schedule", "warmup", "label_smoothing",
    "mixup", "momentum", "weight_decay", "bn_weight_decay", "nesterov", "training_only", "no_checkpoints",
    "gather_checkpoints", "final_weights", "static_loss_scale", "dynamic_loss_scale",
)  # fmt: skip
_OF_LOADING = ("workers", "skip_corrupt")
_OF_LOGGING = ("print_freq",)


def flag(name: str) -> str:
    """An option as the user writes it."""
    return "DIR" if name == "data" else f"--{name.replace('_', '-')}"


def check(options: Options) -> None:
    """Refuse what cannot be run, and what would have no effect.

    Raises:
        ConfigError: names all of it.
    """
    refuse(Problem(flag(name), message) for name, message in _problems(options))


def _problems(options: Options) -> Iterator[tuple[str, str]]:
    yield from _out_of_range(options)
    yield from _without_effect(options)
    yield from _contradictions(options)


def _out_of_range(options: Options) -> Iterator[tuple[str, str]]:
    for name in _POSITIVE:
        if not getattr(options, name) > 0:
            yield name, f"must be greater than 0, got {getattr(options, name)}"
    for name in _NOT_NEGATIVE:
        if not getattr(options, name) >= 0:
            yield name, f"must not be negative, got {getattr(options, name)}"
    for name in ("label_smoothing", "momentum"):
        if not 0 <= getattr(options, name) < 1:
            yield name, f"must be within 0..1 and below 1, got {getattr(options, name)}"
    for name in ("optimizer_batch_size", "prof"):
        if getattr(options, name) != -1 and getattr(options, name) < 1:
            yield name, f"must be at least 1, or -1 for its default, got {getattr(options, name)}"
    if options.static_loss_scale is not None and not options.static_loss_scale > 0:
        yield "static_loss_scale", f"must be greater than 0, got {options.static_loss_scale}"
    try:
        find_configuration(options.model_config)
    except ValueError as error:
        yield "model_config", str(error)


def _without_effect(options: Options) -> Iterator[tuple[str, str]]:
    task = next((name for name in ("evaluate", "benchmark_inference") if getattr(options, name)), None)
    idle: dict[str, str] = {}
    if task is not None:
        idle |= dict.fromkeys((*_OF_TRAINING, *_OF_LOGGING), f"has no effect with {flag(task)}")
    if options.evaluate and options.data_backend != "synthetic":
        idle["seed"] = "has no effect with --evaluate, where nothing is random"
    if options.benchmark_inference or options.data_backend == "synthetic":
        reason = flag(task) if options.benchmark_inference and task else "--data-backend synthetic"
        idle |= dict.fromkeys(_OF_LOADING, f"has no effect with {reason}, which loads no images")
    if options.benchmark_inference:
        idle["data_backend"] = "has no effect with --benchmark-inference, whose images are random"
    if options.data_backend.startswith("dali"):
        idle["skip_corrupt"] = "is offered by --data-backend pytorch alone; choose that, or leave it out"
    if options.no_checkpoints:
        idle["final_weights"] = "has no effect with --no-checkpoints"
    for name in sorted(options.explicit & idle.keys()):
        message = idle[name]
        yield name, message if "leave it out" in message else f"{message}; leave it out"


def _contradictions(options: Options) -> Iterator[tuple[str, str]]:
    given = options.explicit
    if options.evaluate and options.benchmark_inference:
        yield "evaluate", "does not go with --benchmark-inference; give one of the two"
    if options.evaluate and not (options.resume or options.pretrained_weights):
        yield "evaluate", "evaluates a checkpoint; name it with --resume or --pretrained-weights"
    if options.resume not in (None, "auto") and options.pretrained_weights:
        yield "resume", "gives weights, and so does --pretrained-weights; give one of the two"
    if options.resume and "start_epoch" in given:
        yield "start_epoch", "is told by the checkpoint of --resume; leave it out"
    if options.data is None and options.data_backend != "synthetic" and not options.benchmark_inference:
        yield (
            "data",
            "which images? Name a folder with train/<class>/ and val/<class>/, such as datasets/imagenet",
        )
    if options.fp16 and options.amp:
        yield "fp16", "is the same as --amp fp16; give one of the two"
    if options.precision != "fp16":
        for name in sorted(given & {"static_loss_scale", "dynamic_loss_scale"}):
            yield name, "is for fp16 alone; add --amp fp16, or leave it out"
    if options.dynamic_loss_scale and options.static_loss_scale is not None:
        yield "static_loss_scale", "keeps a scale, --dynamic-loss-scale moves it; give one of the two"
    yield from _file_names(options)
    if options.gather_checkpoints and options.no_checkpoints:
        yield "gather_checkpoints", "keeps checkpoints, --no-checkpoints writes none; give one of the two"
    if not options.evaluate and not options.benchmark_inference:
        yield from _contradictions_of_training(options)


def _file_names(options: Options) -> Iterator[tuple[str, str]]:
    own = checkpoint_names(options)
    for name in own.extra_files:
        which = "final_weights" if name == options.final_weights else "raport_file"
        if not name:
            yield which, "must be the name of a file"
        elif dataclasses.replace(own, extra_files=()).is_checkpoint(name):
            yield which, f"must not be {name}, which is the name of a checkpoint; choose another one"
    if options.final_weights == options.raport_file:
        yield "raport_file", "must be another file than --final-weights"
    pretrained = Path(options.pretrained_weights or "").expanduser()
    training = not (options.evaluate or options.benchmark_inference or options.no_checkpoints)
    if (
        training
        and pretrained.parent.resolve() == Path(options.workspace).expanduser().resolve()
        and (own.is_checkpoint(pretrained.name))
    ):
        yield (
            "pretrained_weights",
            f"{pretrained} is a file of an earlier run in this workspace, and the new run moves those aside; "
            "name another --workspace",
        )


def _contradictions_of_training(options: Options) -> Iterator[tuple[str, str]]:
    if options.warmup >= options.epochs > 0:
        yield "warmup", f"must be shorter than the {options.epochs} epochs of the training"
    if options.start_epoch >= options.epochs > 0:
        yield "start_epoch", f"must be below --epochs, which is {options.epochs}"
    if options.nesterov and not options.momentum:
        yield "nesterov", "needs a --momentum greater than 0"
    if (
        options.batch_size > 0
        and options.optimizer_batch_size > 0
        and (options.optimizer_batch_size % options.batch_size)
    ):
        yield "optimizer_batch_size", f"must be a multiple of the batch size, {options.batch_size}"
