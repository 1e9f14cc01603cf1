"""What the files of a run are called in its workspace; needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genutil.checkpoint.file_names import CheckpointNames

if TYPE_CHECKING:
    from imagenet_sparsity_experiments.options import Options


def checkpoint_names(options: Options) -> CheckpointNames:
    """Names and keys of a run's checkpoints."""
    return CheckpointNames(
        last="checkpoint.pth.tar",
        best="model_best.pth.tar",
        first=None,
        numbered="checkpoint-{}.pth.tar",
        keys="resnet",
        extra_files=(options.final_weights, options.raport_file),
    )
