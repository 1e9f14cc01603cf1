"""The data sets: what they hold, where they look, and what they say when files are missing or damaged."""

import gzip
import hashlib
import pickle

import numpy as np
import pytest
import torch
from torchvision import datasets

from data import fashion_mnist
from data.cifar10 import CIFAR10
from data.digits import Digits
from data.fashion_mnist import FashionMNIST
from genutil.exceptions import DataError


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*_args, **_options):
        raise OSError("no network")

    monkeypatch.setattr(datasets.cifar, "download_and_extract_archive", refuse)
    monkeypatch.setattr(datasets.mnist, "download_and_extract_archive", refuse)


def test_digits_are_scikit_learn_s():
    data = Digits("unused", batch_size=64)
    assert (data.train.num_images, data.val.num_images, data.num_classes) == (1437, 360, 10)
    images, _ = next(iter(data.val.batches(0)))
    assert images.shape == (64, 3, 32, 32)
    counts = torch.bincount(data.val.labels)
    assert counts.min() >= 34  # stratified
    assert counts.max() <= 38
    trained = torch.cat([images for images, _ in Digits("unused", 64).train.batches(0)])
    assert abs(trained.mean().item()) < 0.35  # crops bring some black in
    assert not data.train.flip


def test_the_split_of_the_digits_is_fixed():
    first, second = Digits("unused", 64, seed=0), Digits("unused", 64, seed=1)
    assert torch.equal(first.val.labels, second.val.labels)
    assert torch.equal(next(iter(first.val.batches(0)))[0], next(iter(second.val.batches(0)))[0])
    assert not torch.equal(next(iter(first.train.batches(0)))[1], next(iter(second.train.batches(0)))[1])


def test_digits_of_other_sizes():
    assert next(iter(Digits("unused", 8, image_size=16).train.batches(0)))[0].shape == (8, 3, 16, 16)
    with pytest.raises(DataError, match="can be enlarged only, not to 7"):
        Digits("unused", 8, image_size=7)


SMALL = {
    "train images": ("train-images-idx3-ubyte", (20, 28, 28)),
    "train labels": ("train-labels-idx1-ubyte", (20,)),
    "test images": ("t10k-images-idx3-ubyte", (6, 28, 28)),
    "test labels": ("t10k-labels-idx1-ubyte", (6,)),
}


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """Writes a small Fashion-MNIST into a folder."""
    monkeypatch.setattr(fashion_mnist, "FILES", SMALL)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")
    generator = np.random.default_rng(0)
    arrays = {
        name: generator.integers(0, 10 if "labels" in name else 256, shape, dtype=np.uint8)
        for name, shape in SMALL.values()
    }

    def write(folder, packed=True):
        folder = tmp_path / folder
        folder.mkdir(parents=True)
        for name, array in arrays.items():
            path = folder / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
        return arrays

    return write


@pytest.mark.parametrize("folder", ["fashion_mnist", "FashionMNIST/raw", "debian"])
@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_is_found_and_read(fashion, tmp_path, folder, packed):
    arrays = fashion(folder, packed)
    data = FashionMNIST(tmp_path, batch_size=4)
    ((images, labels), *_) = data.val.batches(0)
    assert labels.tolist() == arrays["t10k-labels-idx1-ubyte"][:4].tolist()
    pixels = images * fashion_mnist.STD + fashion_mnist.MEAN
    assert pixels[:, :, :2].abs().max() < 1e-6  # padded with black
    inner = (255 * pixels[:, 0, 2:-2, 2:-2]).round()
    assert np.array_equal(inner.numpy(), arrays["t10k-images-idx3-ubyte"][:4])
    assert torch.equal(images[:, 0], images[:, 1])
    assert data.train.num_images == 20
    assert data.train.flip
    few = FashionMNIST(tmp_path, batch_size=4, num_images=7)
    assert few.train.labels.tolist() == arrays["train-labels-idx1-ubyte"][:7].tolist()
    assert (few.train.num_images, few.val.num_images) == (7, data.val.num_images)
    for number in (0, 60_001):
        with pytest.raises(DataError, match=f"num_images: .* not {number}"):
            FashionMNIST(tmp_path, batch_size=4, num_images=number)


def test_fashion_mnist_offline_says_what_to_do(fashion, tmp_path):
    with pytest.raises(DataError) as caught:
        FashionMNIST(tmp_path, batch_size=4)
    for part in ("no network", str(tmp_path / "fashion_mnist"), "apt-get install dataset-fashion-mnist"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-5], "cannot be read"),
        (
            lambda content: gzip.compress(gzip.decompress(content)[:-1]),
            "is not an IDX file of 20 × 28 × 28 bytes",
        ),
        (lambda content: gzip.compress(b"<html>"), "is not an IDX file"),
        (lambda content: b"<html>", "cannot be read"),
    ],
)
def test_fashion_mnist_damaged(fashion, tmp_path, damage, message):
    fashion("fashion_mnist")
    path = tmp_path / "fashion_mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        FashionMNIST(tmp_path, batch_size=4)


@pytest.mark.skipif(not fashion_mnist.DEBIAN_FOLDER.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_the_real_fashion_mnist(tmp_path):
    data = FashionMNIST(tmp_path, batch_size=500)
    assert (data.train.num_images, data.val.num_images) == (60_000, 10_000)
    assert torch.bincount(data.val.labels).tolist() == [1000] * 10
    pixels = data.train._padded[:, :, 4:-4, 4:-4].double() / 255
    assert abs(pixels.mean().item() - fashion_mnist.MEAN) < 1e-4
    assert abs(pixels.std().item() - fashion_mnist.STD) < 1e-4


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Writes a small CIFAR-10 with checksums of its own into a folder."""
    generator = np.random.default_rng(0)

    def write(folder):
        folder = tmp_path / folder / "cifar-10-batches-py"
        folder.mkdir(parents=True)

        def add(name, content):
            (folder / name).write_bytes(pickle.dumps(content))
            return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

        def batch():
            return {
                "data": generator.integers(0, 256, (4, 3072), dtype=np.uint8),
                "labels": [int(label) for label in generator.integers(0, 10, 4)],
            }

        test = batch()
        monkeypatch.setattr(datasets.CIFAR10, "train_list", [add(f"data_batch_{i}", batch()) for i in (1, 2)])
        monkeypatch.setattr(datasets.CIFAR10, "test_list", [add("test_batch", test)])
        name, md5 = add("batches.meta", {"label_names": list("abcdefghij")})
        meta = {"filename": name, "key": "label_names", "md5": md5}
        monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
        return test

    return write


@pytest.mark.parametrize("folder", ["cifar10", "."])
def test_cifar10_is_found_and_read(cifar, tmp_path, folder):
    test = cifar(folder)
    data = CIFAR10(tmp_path, batch_size=3)
    assert (data.train.num_images, data.val.num_images, len(data.train)) == (8, 4, 3)
    images, labels = next(iter(data.val.batches(0)))
    assert labels.tolist() == test["labels"][:3]
    mean, std = torch.tensor([0.491, 0.482, 0.447]), torch.tensor([0.247, 0.243, 0.262])
    pixels = (images * std.view(3, 1, 1) + mean.view(3, 1, 1)) * 255
    assert np.array_equal(pixels.round().numpy(), test["data"][:3].reshape(3, 3, 32, 32))


def test_cifar10_offline_says_what_to_do(tmp_path):
    with pytest.raises(DataError) as caught:
        CIFAR10(tmp_path, batch_size=4)
    for part in ("no network", "cifar-10-python.tar.gz", str(tmp_path / "cifar10"), "--data-dir"):
        assert part in str(caught.value)


def test_cifar10_with_a_wrong_checksum_is_never_unpickled(cifar, tmp_path):
    cifar("cifar10")

    class Hostile:
        def __reduce__(self):
            return (tmp_path / "executed").mkdir, ()

    path = tmp_path / "cifar10" / "cifar-10-batches-py" / "data_batch_1"
    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(DataError, match="files are missing or damaged; remove the folder and run again"):
        CIFAR10(tmp_path, batch_size=4)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("data", [CIFAR10, FashionMNIST])
def test_sizes_that_a_set_does_not_have(data, tmp_path):
    with pytest.raises(DataError, match=r"image_size: .*32 pixels, not 28"):
        data(tmp_path, batch_size=4, image_size=28)


def test_grey_sets_with_one_channel(fashion, tmp_path):
    fashion("fashion_mnist")
    for kind in (Digits, FashionMNIST):
        one, three = (kind(tmp_path, 4, in_channels=channels) for channels in (1, 3))
        for part in ("train", "val"):
            images, others = (next(iter(getattr(data, part).batches(0)))[0] for data in (one, three))
            assert images.shape == (4, 1, 32, 32)
            assert torch.equal(images, others[:, :1])
        for number in (2, 4):
            with pytest.raises(DataError, match=f"in_channels: the images of .* grey: 1 .*, not {number}"):
                kind(tmp_path, 4, in_channels=number)
