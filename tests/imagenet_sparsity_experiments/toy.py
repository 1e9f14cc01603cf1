"""A toy ImageNet of a few small photographs, and the command on it."""

import json

import numpy as np
from PIL import Image

from imagenet_sparsity_experiments import main
from imagenet_sparsity_experiments.options import parse_options
from models import build_model

SMALL = [
    "--arch",
    "resnet18",
    "--num-classes",
    "3",
    "--image-size",
    "32",
    "--batch-size",
    "4",
    "--workers",
    "0",
]


def build(name="dense", arch="resnet18", num_classes=1000):
    """The network of a configuration, with weights by torch's random numbers."""
    argv = ["--data-backend", "synthetic", "-a", arch, "-c", name, "--num-classes", str(num_classes)]
    return build_model(parse_options(argv).config)


def make_images(folder, train=4, val=2):
    """Three classes, distinguished by their colour."""
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for label in range(3):
            (folder / part / f"class{label}").mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 100, (36 + number, 40, 3), dtype=np.uint8)
                pixels[:, :, label] += 120
                Image.fromarray(pixels).save(folder / part / f"class{label}" / f"{number}.jpg")


def run(images, workspace, *options):
    """The exit status of the command in this process."""
    argv = [str(images), *SMALL, "--workspace", workspace, *options]
    return main.main([str(word) for word in argv])


def raport(workspace, name="experiment_raport.json"):
    return json.loads((workspace / name).read_text())
