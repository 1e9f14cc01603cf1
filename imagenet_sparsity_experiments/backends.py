"""Training and validation images by the name of a data backend."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from data.dali import DaliBatches
from data.image_folder import list_images
from data.imagenet import MEAN, STD, ImageFolders, find_folders
from data.normalise import Normalise
from data.synthetic import SyntheticBatches
from genutil.devices import available_cpus
from genutil.distributed.world import World
from imagenet_sparsity_experiments.options import Options
from trainers.batches import Batches, LimitedBatches, as_batches

_log = logging.getLogger(__name__)
_SYNTHETIC_BATCHES = 100
"""Of an epoch, without --prof."""


@dataclass(frozen=True)
class Images:
    """Batches of this process.

    Attributes:
        train, val: None where they are not needed.
        corrupt: files that were left out.
        num_training: images of a training epoch; None where they are random, or not all are used.
    """

    train: Batches | None
    val: Batches | None
    corrupt: set[str] = field(default_factory=set)
    num_training: int | None = None


def load_images(options: Options, world: World, step_size: int) -> Images:
    """What a run trains on and validates with.

    Args:
        options: of the run.
        world: its processes; each gets its share of every batch.
        step_size: images of an optimizer step.

    Raises:
        DataError: folders or images are missing.
        ConfigError: DALI is asked for and not installed.
    """
    val_size = options.batch_size * world.size
    train: Batches | None
    val: Batches | None
    corrupt: set[str] = set()
    if options.data_backend == "synthetic":
        count = options.prof if options.prof != -1 else _SYNTHETIC_BATCHES
        train, val = (
            SyntheticBatches(
                count, size, options.image_size, options.num_classes, _normalise(world), options.seed
            )
            for size in (step_size, val_size)
        )
    elif options.data_backend == "pytorch":
        folders = ImageFolders(
            str(options.data), step_size, val_size, options.image_size, options.seed, world.device,
            output_size=options.num_classes, workers=_workers(options, world), evaluate=options.evaluate,
            skip_corrupt=options.skip_corrupt, validate=not options.training_only,
        )  # fmt: skip
        train, val, corrupt = folders.train, folders.val, folders.corrupt
    else:
        train, val = _dali(options, world, step_size, val_size)
    return Images(
        None if options.evaluate else _own_part(train, options, world),
        None if options.training_only else _own_part(val, options, world),
        corrupt,
        getattr(train, "num_images", None) if options.prof == -1 else None,
    )


def _dali(
    options: Options, world: World, step_size: int, val_size: int
) -> tuple[DaliBatches | None, DaliBatches | None]:
    folder = Path(str(options.data)).expanduser()
    train, val, classes = find_folders(folder, options.num_classes, options.evaluate)

    def batches(images: Path, size: int, training: bool) -> DaliBatches:
        return DaliBatches(
            list_images(images, classes), options.image_size, size, _normalise(world),
            _workers(options, world), training, options.seed, options.data_backend == "dali-gpu",
        )  # fmt: skip

    return (
        None if options.evaluate else batches(train, step_size, True),
        None if options.training_only else batches(val, val_size, False),
    )


def _own_part(source: object, options: Options, world: World) -> Batches:
    batches = as_batches(source, world)
    return batches if options.prof == -1 else LimitedBatches(batches, options.prof)


def _workers(options: Options, world: World) -> int:
    """As many as asked for, but not more than the CPUs that are there for this process."""
    available = max(1, available_cpus() // world.rank_info.local_size)
    if options.workers > available:
        _log.info("--workers: %d asked for, one for each of %d CPUs is used", options.workers, available)
    return min(options.workers, available)


def _normalise(world: World) -> Normalise:
    return Normalise(MEAN, STD, world.device)
