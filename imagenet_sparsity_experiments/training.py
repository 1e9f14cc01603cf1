"""Puts a training together from the options, and runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from genutil.distributed.world import World
from genutil.errors import ConfigError
from genutil.runs.checkpoint_folder import RunOutputs
from genutil.runs.resume_point import ResumePoint
from genutil.runs.run_folder import RunFolder
from genutil.signals import StopRequest
from imagenet_sparsity_experiments.backends import Images
from imagenet_sparsity_experiments.density import masks_in_use, selecting_layers
from imagenet_sparsity_experiments.files import settings_of, workspace
from imagenet_sparsity_experiments.names import checkpoint_names
from imagenet_sparsity_experiments.options import Options
from imagenet_sparsity_experiments.resnet import SparseResNet
from imagenet_sparsity_experiments.schedules import find_schedule
from trainers.callback import Callback, EveryEpochs
from trainers.callbacks import MetricsFile, Progress, TensorBoard, WiringSummaries
from trainers.checkpointing import CheckpointSaver, resumable_state
from trainers.criterion import Criterion
from trainers.optimizers import sgd, without_decay_of_norms
from trainers.precision import Precision
from trainers.trainer import Trainer

ORDER_KEYS = ("optimizer_batch_size", "seed")
"""Options that decide which images a step gets."""
TRAINING_KEYS = (
    "arch", "model_config", "num_classes", "image_size", "epochs", "lr", "lr_schedule", "warmup",
    "batch_size", "label_smoothing", "mixup", "momentum", "weight_decay", "bn_weight_decay", "nesterov",
    "fp16", "amp", "static_loss_scale",
)  # fmt: skip
"""Options that decide what is trained, and how."""


def step_of(options: Options, num_processes: int) -> tuple[int, int]:
    """(images of an optimizer step, parts in which each process takes its share).

    Raises:
        ConfigError: the step is no multiple of what the processes take at once.
    """
    at_once = options.batch_size * num_processes
    if options.optimizer_batch_size == -1:
        return at_once, 1
    parts, rest = divmod(options.optimizer_batch_size, at_once)
    if rest or not parts:
        raise ConfigError(
            f"--optimizer-batch-size: {options.optimizer_batch_size} images are no multiple of {at_once}, "
            f"which --batch-size {options.batch_size} makes with processes: {num_processes}; give "
            f"{max(parts, 1) * at_once}, or another --batch-size"
        )
    return options.optimizer_batch_size, parts


def check_last_parts(options: Options, images: Images, num_processes: int) -> None:
    """Whether the batch norms of the smallest maps get more than one value of each channel.

    At up to 32 pixels those maps have one pixel, so that a single image has no variance.

    Raises:
        ConfigError: a process would see one image by itself.
    """
    if options.image_size > 32 or images.num_training is None:
        return
    step_size, parts = step_of(options, num_processes)
    last = images.num_training % step_size
    share, one = last // num_processes, options.batch_size == 1
    if one or (last and max(share // parts, min(share, 1)) < 2):
        raise ConfigError(
            f"--batch-size: some step of {images.num_training} images leaves a process one image or none, of "
            f"which batch norms cannot take a variance at {options.image_size} pixels; give another "
            "--batch-size, or an --image-size above 32"
        )


class Training:
    """A training of a network by the options.

    Args:
        options: of the run.
        network: on the world's device, with the weights it begins with.
        images: to train on and to validate with.
        world: the processes.
        start: the checkpoint to go on from, if there is one; its weights are in the network.
        stop: notes signals.
        macs: multiply-accumulates of the network for one image, told to TensorBoard.

    Attributes:
        folder: of the logs; None on all processes but the first.

    Raises:
        UserError: checkpoint or folders cannot be used.
    """

    def __init__(
        self,
        options: Options,
        network: SparseResNet,
        images: Images,
        world: World,
        start: ResumePoint,
        stop: StopRequest,
        macs: int,
    ) -> None:
        check_last_parts(options, images, world.size)
        assert images.train is not None
        self.options, self.world = options, world
        settings = settings_of(options, step_of(options, world.size)[0])
        optimizer = make_optimizer(options, network)
        state, first_step = None, options.start_epoch * len(images.train)
        if start.content is not None:
            state = resumable_state(
                start.content, str(start.path), settings.values, network, optimizer, len(images.train),
                options.topk, ORDER_KEYS, TRAINING_KEYS,
            )  # fmt: skip
            first_step = state["iter"]
        names = checkpoint_names(options)

        def open_outputs() -> tuple[RunFolder, RunOutputs | None]:
            if options.no_checkpoints:
                return RunFolder(settings), None
            outputs = RunOutputs(workspace(options), settings, world.rank_info, start, first_step, names)
            return outputs.run, outputs

        # A run that is refused moves no files of earlier runs, so the folders come after all checks.
        outputs: RunOutputs | None
        self.folder: RunFolder | None
        self.folder, outputs = world.run_on_main(open_outputs) or (None, None)
        callbacks: list[Callback] = []
        content: dict[str, Any] = {
            "arch": options.arch,
            "config": dict(settings.values),
            "started_from": start.record,
        }
        if self.folder is not None:
            board = TensorBoard(self.folder, macs, first_step)
            summaries = WiringSummaries(board, lambda: selecting_layers(network), pictures=False)
            callbacks += [Progress(), MetricsFile(self.folder), board, summaries]
            callbacks.append(EveryEpochs(10, summaries.draw))
            content["origin"] = {**self.folder.origin, "device": str(world.device), "processes": world.size}
        if not options.no_checkpoints:
            callbacks.append(
                CheckpointSaver(
                    outputs.checkpoints if outputs else None,
                    lambda: masks_in_use(network).values(),
                    content,
                    checkpoint_interval=1 if options.gather_checkpoints else None,
                    names=names,
                )
            )
        self.trainer = make_trainer(options, network, optimizer, images, callbacks, world, stop)
        if state is not None:
            self.trainer.load_state_dict(state)
        else:
            self.trainer.epoch, self.trainer.step = options.start_epoch, first_step

    def fit(self) -> dict[str, Any]:
        """Train to the end. Returns the last metrics.

        Raises:
            Interrupted: a signal ended the training; its state is saved.
        """
        trainer = self.trainer
        metrics: dict[str, Any] = trainer.fit()
        if self.options.training_only:
            metrics = {f"train_{name}": value for name, value in metrics.items()}
        else:
            metrics["best_val"] = trainer.best_val
        return {**metrics, "epochs": trainer.epoch, "steps": trainer.step}


def make_optimizer(options: Options, network: SparseResNet) -> torch.optim.Optimizer:
    """SGD by the options; without --bn-weight-decay, batch norms have no weight decay."""
    parameters = network.parameters() if options.bn_weight_decay else without_decay_of_norms(network)
    return sgd(parameters, options.lr, options.momentum, options.weight_decay, nestorov=options.nesterov)


def make_trainer(
    options: Options,
    network: SparseResNet,
    optimizer: torch.optim.Optimizer,
    images: Images,
    callbacks: Sequence[Callback],
    world: World,
    stop: StopRequest,
) -> Trainer:
    """The training loop of the project with this program's criterion and schedule."""
    assert images.train is not None
    return Trainer(
        model=network,
        optimizer=optimizer,
        schedule=find_schedule(
            options.lr_schedule, options.lr, len(images.train), options.epochs, options.warmup
        ),
        train=images.train,
        val=images.val,
        num_epochs=options.epochs,
        topk=options.topk,
        log_interval=options.print_freq,
        callbacks=callbacks,
        precision=Precision(options.precision, world.device, options.static_loss_scale),
        accumulate=step_of(options, world.size)[1],
        world=world,
        stop=stop,
        criterion=Criterion(options.label_smoothing, options.mixup, options.seed),
    )
