"""Batches by NVIDIA DALI: run where it is installed, refused with advice where it is not."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from data.dali import DaliBatches
from data.image_folder import FolderBatches, list_classes, list_images
from data.imagenet import MEAN, STD, centre_crop, training_crop
from data.loading import Loading
from data.normalise import Normalise
from genutil.exceptions import ConfigError, DataError

installed = pytest.mark.skipif(
    importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None,
    reason="NVIDIA DALI is not installed",
)
SIZE = 24


@pytest.fixture
def images(tmp_path):
    """(file, label) of 11 images: each of one colour, with a lighter centre."""
    for number in range(11):
        folder = tmp_path / "abc"[number % 3]
        folder.mkdir(exist_ok=True)
        pixels = np.full((40 + number, 60, 3), 20 * number, np.uint8)
        pixels[10:30, 20:40] += 30
        Image.fromarray(pixels).save(folder / f"{number:02}.jpg", quality=95)
    return list_images(tmp_path, list_classes(tmp_path))


def dali(images, training=False, seed=0, on_gpu=False, batch_size=4):
    normalise = Normalise(MEAN, STD, "cpu")
    return DaliBatches(images, SIZE, batch_size, normalise, 1, training, seed, on_gpu)


def folder(images, training=False):
    transform = training_crop(SIZE) if training else centre_crop(SIZE)
    return FolderBatches(
        images, transform, SIZE, 4, Normalise(MEAN, STD, "cpu"), Loading(0), shuffle=training, seed=0
    )  # fmt: skip


def test_without_dali_the_message_says_how_to_install_it(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali.fn", None)
    with pytest.raises(ConfigError, match=r"pip install nvidia-dali.*--data-backend pytorch"):
        dali(images)


def test_a_gpu_that_is_not_there(images):
    with pytest.raises(ConfigError, match="there is none; choose dali-cpu"):
        dali(images, on_gpu=True)


@installed
def test_evaluation_gives_the_images_of_the_other_backend(images):
    ours, theirs = list(folder(images).batches(0)), list(dali(images).batches(0))
    assert [len(labels) for _, labels in theirs] == [4, 4, 3]
    for (one, labels), (other, same_labels) in zip(ours, theirs, strict=True):
        assert torch.equal(labels, same_labels)
        assert other.shape == one.shape == (len(labels), 3, SIZE, SIZE)
        assert other.dtype == torch.float32
        assert (one - other).abs().mean() < 0.05  # decoders and filters differ in rounding


@installed
def test_training_has_the_order_of_the_other_backend_and_repeats(images):
    ours, theirs = folder(images, training=True), dali(images, training=True)
    for epoch in (0, 1):
        batches = list(theirs.batches(epoch))
        assert [labels.tolist() for _, labels in batches] == [
            labels.tolist() for _, labels in ours.batches(epoch)
        ]
        again = list(dali(images, training=True).batches(epoch))
        assert all(torch.equal(one, two) for (one, _), (two, _) in zip(batches, again, strict=True))
    first, other = (next(iter(dali(images, training=True, seed=seed).batches(0)))[0] for seed in (0, 1))
    assert not torch.equal(first, other)


@installed
def test_going_on_within_an_epoch_and_shares(images):
    whole = [labels.tolist() for _, labels in dali(images, training=True).batches(2)]
    assert [labels.tolist() for _, labels in dali(images, training=True).batches(2, 1)] == whole[1:]
    shares = [
        [labels.tolist() for _, labels in dali(images, training=True).shard(rank, 2).batches(2)]
        for rank in (0, 1)
    ]
    assert [a + b for a, b in zip(*shares, strict=True)] == whole
    last = [list(dali(images, batch_size=10).shard(rank, 2).batches(0))[-1][0] for rank in (0, 1)]
    assert [batch.shape for batch in last] == [(1, 3, SIZE, SIZE), (0, 3, SIZE, SIZE)]


@installed
def test_an_image_that_is_none(images):
    with open(images[1][0], "wb") as file:
        file.write(b"no image")
    with pytest.raises(
        DataError, match=r"cannot be decoded by DALI \(nvImageCodec failure.*--data-backend pytorch names it"
    ):
        list(dali(images).batches(0))
