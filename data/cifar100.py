"""CIFAR-100: 60,000 photographs of 32×32 pixels in a hundred classes; also your own images."""

from __future__ import annotations

from torchvision import datasets

from data.cifar10 import CIFAR10


class CIFAR100(CIFAR10):
    """50,000 images to train on, 10,000 to test, with the fine labels; arguments and errors: see CIFAR10.

    Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. The files are
    searched in `<data_dir>/cifar100` and `<data_dir>`. Set `output_size: 100`.
    """

    name = "CIFAR-100"
    num_classes = 100
    published = datasets.CIFAR100
    subfolder = "cifar100"
    url = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
    mean, std = (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)
    label_key = "fine_labels"
    own_files = "train"
