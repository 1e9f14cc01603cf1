"""The published options of main.py, and their conversion to the keys of an experiment."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from genutil.checkpoint.file_names import RESNET_FORMAT
from genutil.config.problems import Problem, refuse
from genutil.config.resolve import Config, validated
from genutil.config.schema import KeySources, schema
from genutil.config.yaml_files import MergedConfig
from genutil.distributed.rank_info import RankInfo
from genutil.exceptions import ConfigError
from wirings.names import did_you_mean

ARCHITECTURES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
DENSE = ("classic", "fanin", "dense")
FAMILIES = ("allsparse", "ignorefirst", "tdsparse")
CHOICES = "classic | fanin | dense | allsparseK | ignorefirstK | tdsparseK, K = 1..99 per cent kept"
PUBLISHED_SCHEDULES = {"step": "multistep", "linear": "epoch_linear", "cosine": "epoch_cosine"}
"""The key `lr_scheduler` of each published schedule. The milestones of `step` include the warm-up epochs."""
MILESTONES = [30, 60, 80]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Option:
    """A published option.

    Attributes:
        flags: its spellings; the last one names its value.
        key: key of the experiment that gets the value unchanged; None: `_keys` computes the keys.
        settings: arguments of argparse.
    """

    flags: tuple[str, ...]
    key: str | None
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the option's value."""
        return self.flags[-1].lstrip("-").replace("-", "_")


def _option(flags: str, key: str | None = None, /, **settings: Any) -> Option:
    return Option(tuple(flags.split()), key, settings)


_GROUPS: Mapping[str, Sequence[Option]] = {
    "data": (
        _option("data", metavar="DIR", nargs="?",
                help="holds train/<class>/ and val/<class>/; not read where images are random"),
        _option("--data-backend", choices=("pytorch", "dali-gpu", "dali-cpu", "synthetic"),
                default="pytorch",
                help="what loads images: processes, NVIDIA DALI on a GPU or on CPUs, or random images"),
        _option("-j --workers", type=int, default=5, metavar="N",
                help="loading processes of each training process"),
        _option("--image-size", "image_size", type=int, default=224, metavar="N",
                help="height and width of an image, in pixels"),
        _option("--num-classes", "output_size", type=int, default=1000, metavar="N",
                help="classes of the network"),
        _option("--skip-corrupt", "skip_corrupt", action="store_true",
                help="report and skip images that cannot be read; by default one of them is an error"),
    ),
    "network": (
        _option("-a --arch", choices=ARCHITECTURES, default="resnet50", help="architecture"),
        _option("-c --model-config", default="classic", metavar="NAME",
                help=f"which weights stay: {CHOICES}"),
        _option("--pretrained-weights", metavar="FILE",
                help="initial weights: of this project, published or torchvision's; not read if --resume "
                "auto finds a checkpoint"),
    ),
    "training": (
        _option("--epochs", "num_epochs", type=int, default=90, metavar="N",
                help="epochs of the whole training"),
        _option("--start-epoch", "start_epoch", type=int, default=0, metavar="N",
                help="first epoch, without a checkpoint"),
        _option("-b --batch-size", type=int, default=256, metavar="N", help="images of each process at once"),
        _option("--optimizer-batch-size", type=int, default=-1, metavar="N",
                help="images of an optimizer step, over all processes; a larger number than processes times "
                "batch size is accumulated over several passes; -1: processes times batch size"),
        _option("--lr", "lr", type=float, default=0.1, metavar="LR", help="highest learning rate"),
        _option("--lr-schedule", choices=tuple(PUBLISHED_SCHEDULES), default="step",
                help="learning rate after the warm-up"),
        _option("--warmup", "warmup", type=int, default=0, metavar="E",
                help="epochs in which the rate rises to its highest"),
        _option("--label-smoothing", "label_smoothing", type=float, default=0.0, metavar="S",
                help="fraction of a label that is spread over all classes"),
        _option("--mixup", "mixup", type=float, default=0.0, metavar="ALPHA",
                help="mix images, in proportions from Beta(ALPHA, ALPHA)"),
        _option("--momentum", "momentum", type=float, default=0.9, metavar="M", help="momentum of SGD"),
        _option("--wd --weight-decay", "weight_decay", type=float, default=1e-4, metavar="W",
                help="weight decay of SGD"),
        _option("--bn-weight-decay", "norm_weight_decay", action="store_true",
                help="weight decay on batch norms, too"),
        _option("--nesterov", "nestorov", action="store_true", help="Nesterov momentum"),
        _option("--seed", "seed", type=int, default=0, metavar="N",
                help="seed of weights, order, crops and mixtures"),
    ),
    "arithmetic and processes": (
        _option("--amp", nargs="?", const="fp16", choices=("bf16", "fp16"),
                help="16 bits where it is safe, weights and selection in float32; without a value: fp16"),
        _option("--fp16", action="store_true", help="the same as --amp fp16"),
        _option("--static-loss-scale", "loss_scale", type=float, metavar="X",
                help="fp16: scale the loss by X throughout"),
        _option("--dynamic-loss-scale", action="store_true",
                help="fp16: let the scale follow the gradients; done anyway without --static-loss-scale"),
        _option("--compile", "compile", action="store_true", help="run the network by torch.compile"),
        _option("--channels-last", "channels_last", action="store_true",
                help="maps with channels last in memory, for tensor cores"),
        _option("--deterministic", "deterministic", action="store_true",
                help="refuse operations whose results differ from run to run on a GPU"),
        _option("--timeout", "timeout", type=float, default=600.0, metavar="SECONDS",
                help="after which a process that does not answer the others counts as lost"),
    ),
    "task: training, or": (
        _option("--evaluate", action="store_true",
                help="evaluate the weights of --resume or --pretrained-weights"),
        _option("--benchmark-inference", action="store_true",
                help="measure how long the network takes for a batch of random images"),
        _option("--training-only", action="store_true", help="train without validation"),
        _option("--prof", type=int, default=-1, metavar="N",
                help="take only the first N batches of each epoch; -1: all"),
    ),
    "files": (
        _option("--resume", metavar="FILE",
                help="checkpoint to resume from; auto: the workspace's, if there is one"),
        _option("--workspace", default="./", metavar="DIR", help="folder of checkpoints, reports and logs"),
        _option("-p --print-freq", "log_interval", type=int, default=10, metavar="N",
                help="steps between two log lines"),
        _option("--no-checkpoints", action="store_true", help="write no checkpoints and no final weights"),
        _option("--gather-checkpoints", action="store_true", help="keep a checkpoint of every epoch"),
        _option("--final-weights", default="model.pth.tar", metavar="FILE",
                help="file for the weights at the end, in the workspace"),
        _option("--raport-file", default="experiment_raport.json", metavar="FILE",
                help="file for the report, in the workspace"),
    ),
}  # fmt: skip
_OPTIONS = [option for group in _GROUPS.values() for option in group]
_OF_TRAINING = {
    "epochs", "start_epoch", "optimizer_batch_size", "lr", "lr_schedule", "warmup", "label_smoothing",
    "mixup", "momentum", "weight_decay", "bn_weight_decay", "nesterov", "training_only", "no_checkpoints",
    "gather_checkpoints", "final_weights", "static_loss_scale", "dynamic_loss_scale", "print_freq",
}  # fmt: skip
"""Options without effect on an evaluation."""
_COMPARED = {"data", "model", "model_args", "graph", "prune_rate", "rho", "image_size", "output_size"}
"""Keys of the network and its images: an evaluation compares them with those of the checkpoint."""
_COMPUTED_KEYS = {
    "data": "--data-backend", "data_dir": "DIR", "batch_size": "--batch-size",
    "test_batch_size": "--batch-size", "accumulate": "--optimizer-batch-size", "max_batches": "--prof",
    "model_args": "--arch and --model-config", "prune_rate": "--model-config", "graph": "--model-config",
    "rho": "--model-config", "lr_scheduler": "--lr-schedule", "multistep_lr_milestones": "--lr-schedule",
    "topk": "--num-classes", "validation": "--training-only", "use_graph": "--pretrained-weights",
    "checkpoint_dir": "--workspace", "log_dir": "--workspace", "save_checkpoints": "--no-checkpoints",
    "checkpoint_interval": "--gather-checkpoints", "data_backend": "--data-backend",
}  # fmt: skip
"""Options by the key that `_keys` computes from them."""


@dataclass(frozen=True)
class Options:
    """A command line and its experiment.

    Attributes:
        config: the experiment.
        values: values of all published options by name; `optimizer_batch_size` is a number of images, also
            where the command line has -1.
    """

    config: Config
    values: Mapping[str, Any]

    @property
    def workspace(self) -> Path:
        """Folder of all files."""
        return Path(self.values["workspace"]).expanduser()


def parse_options(argv: Sequence[str], rank_info: RankInfo | None = None) -> Options:
    """The experiment of a command line. `--help` prints all options and exits with 0.

    Args:
        argv: the command line.
        rank_info: rank of this process and number of processes; by default there is one process.

    Raises:
        ConfigError: lists all that is wrong with the command line.
    """
    parser = _parser()
    values = vars(parser.parse_args(argv, argparse.Namespace()))
    explicit = {name for name, value in values.items() if value != parser.get_default(name)}
    rank_info = rank_info or RankInfo()
    if values["optimizer_batch_size"] == -1:
        values["optimizer_batch_size"] = values["batch_size"] * rank_info.size
    evaluates = values["evaluate"] or values["benchmark_inference"]
    sources = KeySources(
        not_compared=frozenset(set(schema()) - _COMPARED if evaluates else ()),
        options=_COMPUTED_KEYS
        | {option.key: _flag(option.name) for option in _OPTIONS if option.key is not None},
    )
    config, wrong = validated(MergedConfig(_keys(values, rank_info)), sources)
    problems = [Problem(_flag(name), message) for name, message in _problems(values, explicit, rank_info)]
    refuse([*problems, *(dataclasses.replace(p, subject=config.option(p.subject)) for p in wrong)])
    return Options(config, values)


def convert_settings(values: Mapping[str, Any], rank_info: RankInfo | None = None) -> dict[str, Any]:
    """Convert the settings in a checkpoint of an earlier version of this command to keys of an experiment.

    Such checkpoints have the values of options in place of keys, such as `model_config`. Settings of the
    current version are returned unchanged, and so are wrong ones, with a warning.

    Args:
        values: the settings.
        rank_info: as in `parse_options`.
    """
    if "model_config" not in values:
        return dict(values)
    try:
        config, problems = validated(MergedConfig(_keys(values, rank_info or RankInfo())), KeySources())
        refuse(problems)
        return config.model_dump()
    except (LookupError, TypeError, ValueError, ConfigError) as error:
        _log.warning(
            "the settings of an earlier version of this command cannot be converted, so they are compared as "
            "they are: %s", error,
        )  # fmt: skip
        return dict(values)


class _Parser(argparse.ArgumentParser):
    """Converts errors of argparse into a ConfigError with the nearest option."""

    def error(self, message: str) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        words = message.split() if "unrecognized" in message else []
        word = next((word.partition("=")[0] for word in words if word.startswith("-")), "")
        raise ConfigError(f"{message}{did_you_mean(word, known)}; --help lists all options")


class _Help(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_default = action.default not in (None, False, argparse.SUPPRESS) and action.option_strings
        return f"{action.help} (default: %(default)s)" if has_default else action.help


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="main.py",
        description="Train ResNets on ImageNet in which every layer keeps its strongest weights.",
        epilog="More keys, such as --seeds, --sync_bn, --record_wiring and --export: runner.py with the "
        "experiments in apps/resnet/.",
        formatter_class=_Help,
        allow_abbrev=False,
    )
    for title, options in _GROUPS.items():
        group = parser.add_argument_group(title)
        for option in options:
            names: dict[str, Any] = {} if option.flags == ("data",) else {"dest": option.name}
            group.add_argument(*option.flags, **names, **option.settings)
    return parser


def _flag(name: str) -> str:
    return "DIR" if name == "data" else f"--{name.replace('_', '-')}"


def configuration_keys(name: str) -> dict[str, Any]:
    """The keys of a published configuration: edge rule, prune rate, and `model_args` without defaults.

    Raises:
        ValueError: there is no configuration of this name.
    """
    if name in DENSE:
        return {
            "prune_rate": 0.0,
            "model_args": {"initialisation": "fan_out"} if name == "classic" else {},
        }
    match = re.fullmatch(rf"({'|'.join(FAMILIES)})([1-9]\d?)", name)
    if not match:
        tens = [f"{family}{kept}" for family in FAMILIES for kept in range(10, 100, 10)]
        raise ValueError(f"must be {CHOICES}, got {name}{did_you_mean(name, [*DENSE, *tens])}")
    rate = (100 - int(match[2])) / 100
    keys: dict[str, Any] = {"prune_rate": rate, "model_args": {}}
    if match[1] == "ignorefirst":
        keys["model_args"] = {"exclude": ["conv1"]}
    return {**keys, "graph": "td", "rho": rate} if match[1] == "tdsparse" else keys


def _keys(values: Mapping[str, Any], rank_info: RankInfo) -> dict[str, Any]:
    """The keys of an experiment, by the values of all options.

    An experiment of `apps/resnet` has the same identity here: keys of the roles `result` and `order` are
    equal to those of its file. Wrong values are reported by the schema, or by `_problems`.
    """
    keys = {option.key: values[option.name] for option in _OPTIONS if option.key is not None}
    try:
        keys |= configuration_keys(values["model_config"])
    except ValueError:
        keys["model_args"] = {}
    keys["model_args"] = {"arch": values["arch"], **keys["model_args"]}
    step, at_once = values["optimizer_batch_size"], values["batch_size"] * rank_info.size
    evaluate = values["evaluate"] or values["benchmark_inference"]
    weights, resume = values["pretrained_weights"], values["resume"]
    synthetic = values["data_backend"] == "synthetic" or values["benchmark_inference"]
    batches = values["prof"] if values["prof"] != -1 else None
    if values["lr_schedule"] == "step":
        keys["multistep_lr_milestones"] = MILESTONES
    return {
        **keys,
        "name": f"{values['arch']}_{values['model_config']}",
        "model": "models.sparse_resnet:SparseResNet",
        "data": "data.synthetic:SyntheticImages" if synthetic else "data.imagenet:ImageNet",
        "data_dir": values["data"] or ".",
        "data_backend": "pytorch" if synthetic else values["data_backend"],
        "workers": values["workers"] * rank_info.local_size,
        "batch_size": step,
        "test_batch_size": at_once,
        "accumulate": max(step // max(at_once, 1), 1),
        "lr_scheduler": PUBLISHED_SCHEDULES[values["lr_schedule"]],
        "amp": "fp16" if values["fp16"] else values["amp"],
        "topk": [1, 5] if values["num_classes"] >= 5 else [1],
        "evaluate": evaluate,
        # An evaluation reads the weights of either option; a training is resumed, or starts with weights.
        "resume": (resume or weights) if evaluate else resume,
        "use_graph": None if evaluate else weights,
        "validation": not values["training_only"],
        "max_batches": 20 if values["benchmark_inference"] and batches is None else batches,
        "checkpoint_dir": values["workspace"],
        "log_dir": str(Path(values["workspace"]) / "logs"),
        "checkpoint_format": "resnet",
        "save_checkpoints": not values["no_checkpoints"],
        "checkpoint_interval": 1 if values["gather_checkpoints"] else None,
    }


def _problems(
    values: Mapping[str, Any], explicit: set[str], rank_info: RankInfo
) -> Iterator[tuple[str, str]]:
    """(option, message) of mistakes in options that are not keys of the schema."""
    try:
        configuration_keys(values["model_config"])
    except ValueError as error:
        yield "model_config", str(error)
    idle = _without_effect(values)
    for name in sorted(explicit & idle.keys()):
        yield name, f"has no effect with {idle[name]}; remove it"
    if values["evaluate"] and values["benchmark_inference"]:
        yield "evaluate", "cannot be combined with --benchmark-inference; choose one of them"
    evaluates = values["evaluate"] or values["benchmark_inference"]
    if values["pretrained_weights"] and values["resume"] and (evaluates or values["resume"] != "auto"):
        yield "resume", "gives weights, and so does --pretrained-weights; choose one of them"
    if values["resume"] not in (None, "auto") and "start_epoch" in explicit:
        yield "start_epoch", "is determined by the checkpoint of --resume; remove it"
    needs_images = values["data_backend"] != "synthetic" and not values["benchmark_inference"]
    if values["data"] is None and needs_images:
        yield "data", "is missing; name a folder with train/<class>/ and val/<class>/"
    if values["fp16"] and values["amp"]:
        yield "fp16", "is the same as --amp fp16; choose one of them"
    if values["dynamic_loss_scale"] and not (values["fp16"] or values["amp"] == "fp16"):
        yield "dynamic_loss_scale", "works only with fp16; add --amp fp16, or remove it"
    if values["dynamic_loss_scale"] and values["static_loss_scale"] is not None:
        yield "static_loss_scale", "fixes the scale, --dynamic-loss-scale changes it; choose one of them"
    if values["gather_checkpoints"] and values["no_checkpoints"]:
        yield "gather_checkpoints", "keeps checkpoints, --no-checkpoints writes none; choose one of them"
    step, at_once = values["optimizer_batch_size"], values["batch_size"] * rank_info.size
    if at_once > 0 and (step < at_once or step % at_once):
        yield (
            "optimizer_batch_size",
            f"must be a multiple of {at_once}, the images that the processes take at once (--batch-size "
            f"{values['batch_size']}, processes: {rank_info.size}), got {step}; give "
            f"{max(step // at_once, 1) * at_once}, or another --batch-size",
        )
    yield from _wrong_file_names(values)


def _without_effect(values: Mapping[str, Any]) -> dict[str, str]:
    """Options without effect in this command line, and the options that cause this."""
    idle: dict[str, str] = {}
    if values["no_checkpoints"]:
        idle["final_weights"] = "--no-checkpoints"
    if values["data_backend"] == "synthetic":
        idle |= dict.fromkeys(("workers", "skip_corrupt"), "--data-backend synthetic, which loads no images")
    if values["evaluate"]:
        idle |= dict.fromkeys(_OF_TRAINING, "--evaluate")
        if values["data_backend"] != "synthetic":
            idle["seed"] = "--evaluate, where nothing is random"
    if values["benchmark_inference"]:
        idle |= dict.fromkeys(_OF_TRAINING, "--benchmark-inference")
        images = ("workers", "skip_corrupt", "data_backend")
        idle |= dict.fromkeys(images, "--benchmark-inference, whose images are random")
    return idle


def _wrong_file_names(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for option in ("final_weights", "raport_file"):
        name = values[option]
        if not name:
            yield option, "must be the name of a file"
        elif RESNET_FORMAT.is_checkpoint(name):
            yield option, f"must not be {name}, which is the name of a checkpoint; choose another one"
    if values["final_weights"] == values["raport_file"]:
        yield "raport_file", "must be another file than --final-weights"
