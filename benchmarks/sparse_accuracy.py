"""Accuracy of sparse ResNets, by the command of imagenet_sparsity_experiments.

    python -m benchmarks.sparse_accuracy [--configs C [C ...]] [--seeds N [N ...]] [--arch ARCH] [--epochs N]
        [--images N] [--test_images N] [--data_dir D] [--threads N] [--json FILE]

Images: the first ones of Fashion-MNIST, written as folders of files. The recipe is the published one, with a
learning rate of 0.001 per image of a batch and one epoch of warm-up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.report import Report, run
from data.fashion_mnist import read_files
from genutil.exceptions import RunError
from imagenet_sparsity_experiments import main

BATCH_SIZE, IMAGE_SIZE = 64, 32


def write_folders(folder: Path, data_dir: str, count: int, test_count: int) -> None:
    """`train/<class>/` and `val/<class>/` of PNG files, 28×28 pixels."""
    arrays = read_files(data_dir)
    for split, source, number in (("train", "train", count), ("val", "test", test_count)):
        images, labels = arrays[f"{source} images"], arrays[f"{source} labels"]
        for index in range(number):
            class_folder = folder / split / str(int(labels[index]))
            class_folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[index].numpy()).save(class_folder / f"{index}.png")


def train(options: argparse.Namespace, images: Path, workspace: Path, config: str, seed: int) -> Any:
    """The report of one training.

    Raises:
        RunError: it failed; its error is on standard error.
    """
    recipe = {
        "--arch": options.arch, "--model-config": config, "--num-classes": 10, "--image-size": IMAGE_SIZE,
        "--batch-size": BATCH_SIZE, "--epochs": options.epochs, "--lr": 0.001 * BATCH_SIZE,
        "--lr-schedule": "cosine", "--warmup": 1, "--momentum": 0.875, "--weight-decay": 2**-15,
        "--label-smoothing": 0.1, "--seed": seed, "--workers": 1, "--workspace": workspace,
        "--print-freq": 10**6,
    }  # fmt: skip
    argv = [str(images), *(str(word) for pair in recipe.items() for word in pair), "--no-checkpoints"]
    if main.main(argv):
        raise RunError(f"{config} with seed {seed} failed")
    return json.loads((workspace / "experiment_raport.json").read_text())


def measure_accuracy(options: argparse.Namespace) -> Report:
    report = Report(
        f"{options.arch} on {options.images:,} images of Fashion-MNIST, {options.epochs} epochs",
        ("configuration", "kept weights", "test top-1", "minutes of a run"),
        notes=[
            f"{options.test_images:,} test images, batch {BATCH_SIZE}, {IMAGE_SIZE} px; mean over the seeds "
            f"{', '.join(map(str, options.seeds))}, values in brackets"
        ],
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folders(folder / "images", options.data_dir, options.images, options.test_images)
        for config in options.configs:
            results = [
                train(options, folder / "images", folder / f"{config}-{seed}", config, seed)
                for seed in options.seeds
            ]
            top1 = [result["top1_accuracy"] for result in results]
            minutes = statistics.median(result["wall_time"] for result in results) / 60
            mean, kept = statistics.mean(top1), results[0]["kept"]
            values = ", ".join(f"{value:.2f}" for value in top1)
            cells = (config, f"{kept:,}", f"{mean:.2f} % ({values})", f"{minutes:.1f}")
            report.add(cells, configuration=config, kept=kept, mean=mean, tops=top1)
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs", nargs="+", default=["dense", "allsparse20"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--test_images", type=int, default=2000)
    parser.add_argument(
        "--data_dir", default="datasets", help="folder of the four files; see data.fashion_mnist"
    )
    run(measure_accuracy, parser)
