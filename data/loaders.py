"""Batches from images in memory: shuffled, cropped, flipped and normalised on the device."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data.normalise import Normalise
from genutil.distributed.rank_info import shard_slice


class ImageBatches:
    """Batches of a set of images. Batch b of epoch e depends on (seed, e, b) alone.

    Args:
        images: uint8, (images, channels, height, width). One channel becomes `len(mean)` equal ones.
        labels: int64, (images).
        batch_size: images of a batch; the last one of an epoch may be shorter.
        mean, std: by channel, for pixels within 0..1.
        shuffle: a new order in each epoch.
        crop_padding: zeros around an image, of which a random crop of the image's size is taken; 0: no crop.
        flip: mirror each image left to right, with a probability of one half.
        seed: of order, crops and flips.
        device: where the images are and the batches are made.

    Attributes:
        num_images: images of an epoch.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        shuffle: bool = False,
        crop_padding: int = 0,
        flip: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_images, self.batch_size = len(labels), batch_size
        self.shuffle, self.crop_padding, self.flip, self.seed = shuffle, crop_padding, flip, seed
        self.height, self.width = images.shape[-2:]
        self.labels = labels.to(device)
        # Padded once: a crop is then a copy of rows of contiguous bytes.
        self._padded = F.pad(images.to(device), (crop_padding,) * 4).contiguous()
        self._normalise = Normalise(mean, std, device)
        self._rank, self._size = 0, 1

    def __len__(self) -> int:
        return -(-self.num_images // self.batch_size)

    def shard(self, rank: int, size: int) -> ImageBatches:
        """A copy with the shard of process `rank` of `size` of each batch; this object does not change."""
        shard = copy.copy(self)
        shard._rank, shard._size = rank, size
        return shard

    def example_batch(self) -> tuple[Tensor, Tensor]:
        """The first image as in a batch, and all labels."""
        crop = self._padded[:1, :, : self.height, : self.width]
        return self._normalise(crop), self.labels

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """float32 images (n, channels, height, width) and int64 labels (n), from batch `start` on."""
        if self.shuffle:
            order = torch.randperm(self.num_images, generator=self._generator("cpu", epoch))
        else:
            order = torch.arange(self.num_images)
        order = order.to(self.labels.device)
        for number, indices in enumerate(torch.split(order, self.batch_size)[start:], start):
            own_slice = shard_slice(len(indices), self._rank, self._size)
            images = self._images(indices, epoch, number, own_slice)
            yield self._normalise(images), self.labels[indices[own_slice]]

    def _images(self, indices: Tensor, epoch: int, number: int, own_slice: slice) -> Tensor:
        """uint8 images, cropped and flipped: `own_slice` of a whole batch `indices`.

        Random numbers are drawn for the whole batch, so that an image is the same in whichever shard it is.
        """
        if not self.crop_padding and not self.flip:
            return self._padded[indices[own_slice]]
        device = indices.device
        generator = self._generator(device, epoch, number)
        offsets = torch.randint(
            0, 2 * self.crop_padding + 1, (2, len(indices)), generator=generator, device=device
        )
        images = self._crops(indices[own_slice], *offsets[:, own_slice])
        if self.flip:
            flips = torch.rand(len(indices), generator=generator, device=device)[own_slice] < 0.5
            if device.type == "cuda":  # nonzero() would wait for the device
                return torch.where(flips.view(-1, 1, 1, 1), images.flip(-1), images)
            flipped = flips.nonzero().flatten()
            images[flipped] = images[flipped].flip(-1)
        return images

    def _crops(self, indices: Tensor, tops: Tensor, lefts: Tensor) -> Tensor:
        """Crops of the images `indices`; crop i begins at row tops[i] and column lefts[i].

        In memory, every row of a crop is a window of `width` bytes, so one selection of windows gives all
        crops: five times as fast as indexing pixel by pixel.
        """
        channels, height, width = self._padded.shape[1:]
        windows = self._padded.as_strided((self._padded.numel() - self.width + 1, self.width), (1, 1))
        planes = indices.view(-1, 1, 1) * channels + torch.arange(channels, device=indices.device).view(-1, 1)
        rows = tops.view(-1, 1, 1) + torch.arange(self.height, device=indices.device)
        first_bytes = (planes * height + rows) * width + lefts.view(-1, 1, 1)
        crops = windows.index_select(0, first_bytes.flatten())
        return crops.view(len(indices), channels, self.height, self.width)

    def _generator(self, device: torch.device | str, *numbers: int) -> torch.Generator:
        """Generator of independent random numbers for each (seed, epoch) and (seed, epoch, batch)."""
        state = np.random.SeedSequence([self.seed, *numbers]).generate_state(1, np.uint64)
        return torch.Generator(device).manual_seed(int(state[0] >> np.uint64(1)))
