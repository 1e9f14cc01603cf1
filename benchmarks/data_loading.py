"""Batches from memory, compared with the usual torchvision pipeline: PIL images, transforms, a DataLoader.

    python -m benchmarks.data_loading [--rounds N] [--images N] [--threads N] [--json FILE]

Images are random bytes of CIFAR-10's size. Both pipelines shuffle, crop after padding by 4, mirror and
normalise.
"""

from __future__ import annotations

import argparse

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from benchmarks.machine import measure
from benchmarks.report import Report, run
from data.cifar10 import MEAN, STD
from data.loaders import ImageBatches

BATCH_SIZE = 512


class PILImages(Dataset[tuple[torch.Tensor, int]]):
    """The pipeline of torchvision's CIFAR10: each array is converted to a PIL image and transformed."""

    def __init__(self, images: torch.Tensor) -> None:
        self.arrays = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(to_pil_image(self.arrays[index])), index % 10


def measure_epochs(options: argparse.Namespace) -> Report:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (options.images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    ours = ImageBatches(
        images, torch.arange(options.images) % 10, BATCH_SIZE, MEAN, STD,
        shuffle=True, crop_padding=4, flip=True,
    )  # fmt: skip
    loaders = {
        f"torchvision, {workers} workers": DataLoader(
            PILImages(images), BATCH_SIZE, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )
        for workers in (0, 2)
    }
    candidates = {name: lambda loader=loader: [None for _ in loader] for name, loader in loaders.items()}
    candidates["in memory"] = lambda: [None for _ in ours.batches(0)]
    times = measure(candidates, options.rounds)
    report = Report(
        "An epoch of augmented batches",
        ("pipeline", "epoch", "images/s", "in memory is faster by"),
        notes=[
            f"rounds: {options.rounds}, medians (low to high), {options.images:,} images, "
            f"batches of {BATCH_SIZE}"
        ],
    )
    for name, spread in times.items():
        ratio, speed = spread.median / times["in memory"].median, options.images / spread.median
        report.add((name, str(spread), f"{speed:,.0f}", f"{ratio:.1f}×"), pipeline=name, **spread.numbers())
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=20_000)
    run(measure_epochs, parser)
