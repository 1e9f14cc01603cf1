"""The options of main.py: the published names, defaults and meanings, and what does not go together."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NoReturn

from genutil.errors import ConfigError
from imagenet_sparsity_experiments.configurations import ARCHITECTURES, CHOICES
from imagenet_sparsity_experiments.contradictions import check
from imagenet_sparsity_experiments.schedules import SCHEDULES
from wirings.names import did_you_mean

BACKENDS = ("pytorch", "dali-gpu", "dali-cpu", "synthetic")


@dataclass(frozen=True)
class Options:
    """One value for each option; `explicit` holds the names of those that the user gave."""

    data: str | None
    data_backend: str
    workers: int
    image_size: int
    num_classes: int
    skip_corrupt: bool
    arch: str
    model_config: str
    pretrained_weights: str | None
    epochs: int
    start_epoch: int
    batch_size: int
    optimizer_batch_size: int
    lr: float
    lr_schedule: str
    warmup: int
    label_smoothing: float
    mixup: float
    momentum: float
    weight_decay: float
    bn_weight_decay: bool
    nesterov: bool
    seed: int
    fp16: bool
    amp: str | None
    static_loss_scale: float | None
    dynamic_loss_scale: bool
    compile: bool
    channels_last: bool
    deterministic: bool
    timeout: float
    evaluate: bool
    benchmark_inference: bool
    training_only: bool
    prof: int
    resume: str | None
    workspace: str
    print_freq: int
    no_checkpoints: bool
    gather_checkpoints: bool
    final_weights: str
    raport_file: str
    explicit: frozenset[str] = frozenset()

    @property
    def precision(self) -> str | None:
        """bf16, fp16, or None for float32."""
        return "fp16" if self.fp16 else self.amp

    @property
    def topk(self) -> tuple[int, ...]:
        """Which accuracies are counted: the first, and the first five where there are as many classes."""
        return (1, 5) if self.num_classes >= 5 else (1,)

    def values(self) -> dict[str, Any]:
        """All options by name, as plain values."""
        return {name: value for name, value in asdict(self).items() if name != "explicit"}


def parse_options(argv: Sequence[str]) -> Options:
    """The options of a command line. `--help` prints all of them and exits with 0.

    Raises:
        ConfigError: all that is wrong with it.
    """
    parser = _parser()
    given = vars(parser.parse_args(argv, argparse.Namespace()))
    explicit = frozenset(name for name, value in given.items() if value != parser.get_default(name))
    options = Options(**given, explicit=explicit)
    check(options)
    return options


class _Parser(argparse.ArgumentParser):
    """Tells a mistake as an error of this project's, with the near spelling."""

    def error(self, message: str) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        words = message.split() if "unrecognized" in message else []
        word = next((word.partition("=")[0] for word in words if word.startswith("-")), "")
        raise ConfigError(f"{message}{did_you_mean(word, known)}; --help lists all options")


class _Help(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = action.default not in (None, False, argparse.SUPPRESS) and action.option_strings
        return f"{action.help} (default: %(default)s)" if shown else action.help


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="main.py",
        description="Train ResNets on ImageNet in which every layer keeps its strongest weights.",
        formatter_class=_Help,
        allow_abbrev=False,
    )
    for add in (_data, _network, _training, _arithmetic, _task, _files):
        add(parser)
    assert {action.dest for action in parser._actions} - {"help"} == {
        field.name for field in fields(Options)
    } - {"explicit"}
    return parser


def _data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument(
        "data",
        metavar="DIR",
        nargs="?",
        help="holds train/<class>/ and val/<class>/; not read where images are random",
    )
    group.add_argument(
        "--data-backend", choices=BACKENDS, default="pytorch",
        help="what loads images: worker processes, NVIDIA DALI on a GPU or on CPUs, or random images",
    )  # fmt: skip
    group.add_argument(
        "-j", "--workers", type=int, default=5, metavar="N", help="loading processes of each training process"
    )
    group.add_argument(
        "--image-size", type=int, default=224, metavar="N", help="height and width of an image, in pixels"
    )
    group.add_argument("--num-classes", type=int, default=1000, metavar="N", help="classes of the network")
    group.add_argument(
        "--skip-corrupt", action="store_true",
        help="images that cannot be read are named, counted and left out; else they end the run",
    )  # fmt: skip


def _network(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("network")
    group.add_argument("-a", "--arch", choices=[*ARCHITECTURES], default="resnet50", help="architecture")
    group.add_argument(
        "-c", "--model-config", default="classic", metavar="NAME", help=f"which weights stay: {CHOICES}"
    )
    group.add_argument(
        "--pretrained-weights", metavar="FILE", help="weights to begin with: ours, published or torchvision's"
    )


def _training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=int, default=90, metavar="N", help="epochs of the whole training")
    group.add_argument(
        "--start-epoch", type=int, default=0, metavar="N", help="first epoch, without --resume"
    )
    group.add_argument(
        "-b", "--batch-size", type=int, default=256, metavar="N", help="images of each process at once"
    )
    group.add_argument(
        "--optimizer-batch-size", type=int, default=-1, metavar="N",
        help="images of an optimizer step, over all processes; larger ones than fit are taken in parts; "
        "-1: processes times batch size",
    )  # fmt: skip
    group.add_argument("--lr", type=float, default=0.1, metavar="LR", help="highest learning rate")
    group.add_argument(
        "--lr-schedule", choices=SCHEDULES, default="step", help="learning rate after the warm-up"
    )
    group.add_argument(
        "--warmup", type=int, default=0, metavar="E", help="epochs in which the rate rises to its highest"
    )
    group.add_argument(
        "--label-smoothing",
        type=float,
        default=0.0,
        metavar="S",
        help="part of a label spread over all classes",
    )
    group.add_argument(
        "--mixup",
        type=float,
        default=0.0,
        metavar="ALPHA",
        help="mix images, with shares from Beta(ALPHA, ALPHA)",
    )
    group.add_argument("--momentum", type=float, default=0.9, metavar="M", help="momentum of SGD")
    group.add_argument(
        "--weight-decay", "--wd", type=float, default=1e-4, metavar="W", help="weight decay of SGD"
    )
    group.add_argument("--bn-weight-decay", action="store_true", help="weight decay on batch norms, too")
    group.add_argument("--nesterov", action="store_true", help="Nesterov momentum")
    group.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of weights, order, crops and mixtures"
    )


def _arithmetic(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("arithmetic and processes")
    group.add_argument(
        "--amp", nargs="?", const="fp16", choices=("bf16", "fp16"), default=None,
        help="16 bits where it is safe, weights and selection in float32; without a value: fp16",
    )  # fmt: skip
    group.add_argument("--fp16", action="store_true", help="the same as --amp fp16")
    group.add_argument(
        "--static-loss-scale", type=float, metavar="X", help="fp16: scale the loss by X throughout"
    )
    group.add_argument(
        "--dynamic-loss-scale", action="store_true",
        help="fp16: let the scale follow the gradients; done anyway without --static-loss-scale",
    )  # fmt: skip
    group.add_argument("--compile", action="store_true", help="run the network by torch.compile")
    group.add_argument(
        "--channels-last", action="store_true", help="maps with channels last in memory, for tensor cores"
    )
    group.add_argument(
        "--deterministic", action="store_true",
        help="refuse operations whose results differ from run to run on a GPU",
    )  # fmt: skip
    group.add_argument(
        "--timeout", type=float, default=600.0, metavar="SECONDS",
        help="after which a process that does not answer the others counts as lost",
    )  # fmt: skip


def _task(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("task: training, or")
    group.add_argument(
        "--evaluate", action="store_true", help="evaluate the weights of --resume or --pretrained-weights"
    )
    group.add_argument(
        "--benchmark-inference", action="store_true", help="measure how long the network takes for a batch"
    )
    group.add_argument("--training-only", action="store_true", help="train without validation")
    group.add_argument(
        "--prof",
        type=int,
        default=-1,
        metavar="N",
        help="take only the first N batches of each epoch; -1: all",
    )


def _files(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("files")
    group.add_argument(
        "--resume", metavar="FILE", help="checkpoint to go on from; auto: the workspace's, if there is one"
    )
    group.add_argument(
        "--workspace", default="./", metavar="DIR", help="folder of checkpoints, reports and logs"
    )
    group.add_argument(
        "-p", "--print-freq", type=int, default=10, metavar="N", help="steps between two log lines"
    )
    group.add_argument(
        "--no-checkpoints", action="store_true", help="write no checkpoints and no final weights"
    )
    group.add_argument("--gather-checkpoints", action="store_true", help="keep a checkpoint of every epoch")
    group.add_argument(
        "--final-weights", default="model.pth.tar", metavar="FILE",
        help="file for the weights at the end, in the workspace",
    )  # fmt: skip
    group.add_argument(
        "--raport-file", default="experiment_raport.json", metavar="FILE",
        help="file for the report, in the workspace",
    )  # fmt: skip
