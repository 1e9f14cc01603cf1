"""Batches from folders of image files, decoded and cropped by NVIDIA DALI, on GPUs or CPUs.

DALI is an optional package, imported when it is used. Its CPU pipelines were run and tested; those of GPUs
were not measured yet.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch.utils.dlpack
from torch import Tensor

from data.image_folder import EpochBatchSampler
from data.normalise import Normalise
from genutil.exceptions import ConfigError, DataError

_MISSING = (
    "data_backend: dali needs NVIDIA DALI, which is not installed ({error}); install it with "
    "`pip install nvidia-dali-cuda120` or `-cuda130`, by the version of CUDA that torch was built with, or "
    "choose --data-backend pytorch"
)


class DaliBatches:
    """Batches in the order of FolderBatches: the images of batch b of epoch e depend on (seed, e, b) alone.

    Crops and flips depend on (seed, epoch, first batch): a training that is resumed within an epoch gets the
    same images with other crops.

    Args:
        images: (file, label).
        image_size: height and width for the network, in pixels.
        batch_size: images of a batch; the last one of an epoch may be shorter.
        normalise: uint8 to float32, on the device.
        threads: decoding threads of this process.
        training: random crops and flips and a new order in each epoch; else the centre crop, in order.
        seed: of order, crops and flips.
        on_gpu: decode on the GPU; else on the CPU.

    Attributes:
        num_images: images of an epoch.

    Raises:
        ConfigError: DALI is not installed, there is no GPU to decode on, or images are to be grey.
    """

    def __init__(
        self,
        images: Sequence[tuple[str, int]],
        image_size: int,
        batch_size: int,
        normalise: Normalise,
        threads: int,
        training: bool,
        seed: int,
        on_gpu: bool,
    ) -> None:
        if normalise.channels != 3:
            raise ConfigError("data_backend: DALI gives images of 3 channels; set in_channels: 3")
        if on_gpu and normalise.device.type != "cuda":
            raise ConfigError("data_backend: dali-gpu decodes on a GPU, and there is none; choose dali-cpu")
        import_dali()
        self.images, self.image_size, self.normalise = images, image_size, normalise
        self.num_images = len(images)
        self.threads, self.training, self.seed, self.on_gpu = max(threads, 1), training, seed, on_gpu
        self._sampler = EpochBatchSampler(len(images), batch_size, training, seed)

    def __len__(self) -> int:
        return len(self._sampler)

    def shard(self, rank: int, size: int) -> DaliBatches:
        """A copy with the shard of process `rank` of `size` of each batch; this object does not change."""
        shard = copy.copy(self)
        shard._sampler = self._sampler.shard(rank, size)
        return shard

    def example_batch(self) -> tuple[Tensor, Tensor]:
        """An image as in a batch, in black, and all labels: no file is read."""
        pixels = torch.zeros(1, 3, self.image_size, self.image_size, dtype=torch.uint8)
        return self.normalise(pixels), torch.tensor([label for _, label in self.images])

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """float32 images (n, 3, height, width) and int64 labels (n), from batch `start` on.

        Raises:
            DataError: an image cannot be decoded.
        """
        self._sampler.epoch, self._sampler.start = epoch, start
        batches = [[index for _, index in batch] for batch in self._sampler]
        indices = [index for batch in batches for index in batch]
        pipeline = None
        if indices:
            # The shards of a process have one size, except the last one, which may be smaller or empty.
            seeds = [self.seed, epoch, start, self._sampler.rank]
            pipeline = self._pipeline(indices, len(batches[0]), seeds)
        for batch in batches:
            labels = torch.tensor([self.images[index][1] for index in batch], dtype=torch.int64)
            if batch and pipeline is not None:
                images = self._decoded(pipeline)[: len(batch)]
            else:
                images = torch.zeros(0, 3, self.image_size, self.image_size, dtype=torch.uint8)
            yield self.normalise(images), labels.to(self.normalise.device, non_blocking=True)

    def _pipeline(self, indices: Sequence[int], batch_size: int, seeds: Sequence[int]) -> Any:
        """A built pipeline that decodes and crops the images with these indices, in this order."""
        dali = import_dali()
        fn, types = dali.fn, dali.types
        decoder = "mixed" if self.on_gpu else "cpu"

        def pixels() -> Any:
            encoded, _ = fn.readers.file(
                files=[self.images[index][0] for index in indices], labels=[0] * len(indices), name="files"
            )
            size, mirror = [self.image_size] * 2, 0
            if self.training:
                images = fn.decoders.image_random_crop(
                    encoded, device=decoder, output_type=types.RGB, random_area=[0.08, 1.0],
                    random_aspect_ratio=[3 / 4, 4 / 3], num_attempts=10,
                )  # fmt: skip
                images = fn.resize(images, size=size, antialias=True)
                mirror = fn.random.coin_flip(probability=0.5)
            else:
                images = fn.decoders.image(encoded, device=decoder, output_type=types.RGB)
                images = fn.resize(images, resize_shorter=round(self.image_size * 256 / 224), antialias=True)
            return fn.crop_mirror_normalize(
                images,
                crop=size,
                mirror=mirror,
                dtype=types.UINT8,
                output_layout="CHW",
                mean=[0.0],
                std=[1.0],
            )

        pipeline = dali.Pipeline(
            batch_size=batch_size,
            num_threads=self.threads,
            device_id=self.normalise.device.index or 0 if self.on_gpu else None,
            seed=int(np.random.SeedSequence(list(seeds)).generate_state(1)[0] >> 1),  # 31 bits
        )
        with pipeline:
            pipeline.set_outputs(pixels())
        pipeline.build()
        return pipeline

    def _decoded(self, pipeline: Any) -> Tensor:
        """The next batch as uint8 (images, 3, height, width)."""
        try:
            # On torch's stream, so that DALI does not reuse its memory before it is copied.
            stream = torch.cuda.current_stream(self.normalise.device) if self.on_gpu else None
            (images,) = pipeline.run(stream)
        except RuntimeError as error:
            text = str(error)  # with a traceback through the pipeline's definition
            reason = (text.partition("encountered:")[2] or text).strip().partition("\n")[0]
            raise DataError(
                f"an image cannot be decoded by DALI ({reason}); --data-backend pytorch names it, and leaves "
                "such images out with --skip-corrupt"
            ) from error
        return torch.utils.dlpack.from_dlpack(images.as_tensor()).clone()


def import_dali() -> Any:
    """The package `nvidia.dali`.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        importlib.import_module("nvidia.dali.fn")
        importlib.import_module("nvidia.dali.types")
        return importlib.import_module("nvidia.dali")
    except ImportError as error:
        raise ConfigError(_MISSING.format(error=error)) from error
