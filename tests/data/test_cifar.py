"""Files in the format of CIFAR: the published sets, images of one's own, and hostile files."""

import hashlib
import logging
import pickle

import numpy as np
import pytest
import torch
from torchvision import datasets

import runner
from data import cifar10
from data.cifar10 import CIFAR10
from data.cifar100 import CIFAR100
from genutil.exceptions import DataError

FOLDERS = {CIFAR10: "cifar-10-batches-py", CIFAR100: "cifar-100-python"}
FILES = {CIFAR10: ["data_batch_1", "data_batch_2", "test_batch"], CIFAR100: ["train", "test"]}


def batch(seed, key="labels", count=4, classes=10):
    generator = np.random.default_rng(seed)
    return {
        "data": generator.integers(0, 256, (count, 3072), dtype=np.uint8),
        key: [int(label) for label in generator.integers(0, classes, count)],
    }


@pytest.fixture
def own(tmp_path):
    """Writes files of one's own; gives what is in them."""

    def write(kind=CIFAR10, protocol=2, change=lambda content: content):
        key, classes = ("labels", 10) if kind is CIFAR10 else ("fine_labels", 100)
        folder = tmp_path / FOLDERS[kind]
        folder.mkdir(exist_ok=True)
        contents = {
            name: batch(seed, key, classes=classes) | {"coarse_labels": [0] * 4, "batch_label": "own"}
            for seed, name in enumerate(FILES[kind])
        }
        for name, content in contents.items():
            (folder / name).write_bytes(pickle.dumps(change(content), protocol))
        return contents

    return write


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100])
def test_images_of_one_s_own(own, tmp_path, kind, protocol, caplog):
    *train, test = own(kind, protocol).values()
    with caplog.at_level(logging.WARNING):
        data = kind(tmp_path, batch_size=20, verify=False)
    assert "not the published files, by their checksums" in caplog.text
    key = "labels" if kind is CIFAR10 else "fine_labels"
    assert data.train.labels.tolist() == [label for content in train for label in content[key]]
    ((images, labels),) = data.val.batches(0)
    assert labels.tolist() == test[key]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (kind.mean, kind.std))
    pixels = ((images * std + mean) * 255).round().numpy()
    assert np.array_equal(pixels.reshape(-1, 3072), test["data"])


@pytest.mark.parametrize(
    "change",
    [
        lambda content: {key.encode(): value for key, value in content.items()},
        lambda content: {**content, "labels": np.array(content["labels"])},
        lambda content: {**content, "labels": np.array(content["labels"], dtype=np.uint8)},
        lambda content: {**content, "labels": list(np.array(content["labels"]))},
        lambda content: {**content, "data": np.asfortranarray(content["data"])},
    ],
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_ways_to_write_the_same_content(own, tmp_path, change, protocol):
    contents = own(change=change, protocol=protocol)
    data = CIFAR10(tmp_path, batch_size=8, verify=False)
    assert data.val.labels.tolist() == contents["test_batch"]["labels"]
    assert np.array_equal(data.val._padded.flatten(1).numpy(), contents["test_batch"]["data"])


def test_bytes_of_python_2_are_read(own, tmp_path):
    """The published files hold an array whose bytes are a string of Python 2."""
    contents = own()
    path = tmp_path / FOLDERS[CIFAR10] / "test_batch"
    pixels, labels = contents["test_batch"]["data"], contents["test_batch"]["labels"]
    raw = pixels.tobytes()
    path.write_bytes(
        b"\x80\x02}(U\x04data"
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01K\x04M\x00\x0c\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89T" + len(raw).to_bytes(4, "little") + raw + b"tb"
        b"U\x06labels](" + b"".join(b"K" + bytes([label]) for label in labels) + b"eu."
    )
    assert pickle.loads(path.read_bytes(), encoding="latin1")["labels"] == labels
    data = CIFAR10(tmp_path, batch_size=8, verify=False)
    assert data.val.labels.tolist() == labels
    assert np.array_equal(data.val._padded.flatten(1).numpy(), pixels)


def test_other_checksums_are_refused_by_default(own, tmp_path, monkeypatch):
    own()
    lists = [[name, "0" * 32] for name in FILES[CIFAR10]]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", lists[:2])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", lists[2:])
    with pytest.raises(DataError, match=r"run again, or, .* --data_args verify=false \(data_batch_1 has"):
        CIFAR10(tmp_path, batch_size=4)


def test_the_published_files_are_no_reason_to_warn(own, tmp_path, monkeypatch, caplog):
    own(CIFAR100)
    for part in ("train", "test"):
        md5 = hashlib.md5((tmp_path / FOLDERS[CIFAR100] / part).read_bytes()).hexdigest()
        monkeypatch.setattr(datasets.CIFAR100, f"{part}_list", [[part, md5]])
    with caplog.at_level(logging.WARNING):
        for verify in (True, False):
            CIFAR100(tmp_path, batch_size=4, verify=verify)
    assert not caplog.text


def test_folders_and_files_of_one_s_own_that_are_missing(own, tmp_path):
    with pytest.raises(DataError, match="cifar-10-batches-py: there is no such folder; put files"):
        CIFAR10(tmp_path, batch_size=4, verify=False)
    own()
    (tmp_path / FOLDERS[CIFAR10] / "test_batch").unlink()
    with pytest.raises(DataError, match=r"\(test_batch is missing\)"):
        CIFAR10(tmp_path, batch_size=4, verify=False)


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", ["whole", "data", "labels", "other"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_nothing_in_a_file_is_executed(own, tmp_path, place, protocol):
    def spoil(content):
        hostile = Hostile((tmp_path / "executed").mkdir)
        return hostile if place == "whole" else {**content, place: hostile}

    own(change=spoil, protocol=protocol)
    with pytest.raises(DataError, match=r"data_batch_1: is not a CIFAR batch .* is not allowed in it"):
        CIFAR10(tmp_path, batch_size=4, verify=False)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: {**content, "data": content["data"][:, :100]}, r"data must be uint8 of the shape"),
        (lambda content: {**content, "data": content["data"].astype(int)}, "data must be uint8"),
        (lambda content: {**content, "data": content["data"][:0], "labels": []}, "is not a CIFAR batch"),
        (lambda content: {**content, "labels": content["labels"][:3]}, "labels must be 4 integers"),
        (lambda content: {**content, "labels": [0.5] * 4}, "labels must be 4 integers"),
        (lambda content: {**content, "labels": None}, "labels must be 4 integers"),
        (lambda content: {"data": content["data"]}, "KeyError: 'labels'"),
        (lambda content: {**content, "data": np.array([None, {}])}, "is not a CIFAR batch"),
        (lambda content: {**content, "data": np.zeros(2, "f4")}, "arrays of type 'f4' are not allowed"),
        (lambda content: [content], "is not a CIFAR batch"),
    ],
)
def test_files_with_other_content(own, tmp_path, change, message):
    own(change=change)
    with pytest.raises(DataError, match=f"data_batch_1: .*{message}"):
        CIFAR10(tmp_path, batch_size=4, verify=False)


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02}", b"<html>", b"\x80\x04\x95" + b"\xff" * 8, b"r\xff\xff\xff\x7f."]
)
def test_damaged_files(own, tmp_path, content):
    own()
    (tmp_path / FOLDERS[CIFAR10] / "data_batch_2").write_bytes(content)
    with pytest.raises(DataError, match="data_batch_2: is not a CIFAR batch"):
        CIFAR10(tmp_path, batch_size=4, verify=False)


def test_grey_images(own, tmp_path):
    contents = own()
    data = CIFAR10(tmp_path, batch_size=8, verify=False, in_channels=1)
    ((images, _),) = data.val.batches(0)
    assert images.shape == (4, 1, 32, 32)
    red, green, blue = contents["test_batch"]["data"].reshape(4, 3, 32, 32).transpose(1, 0, 2, 3) / 255
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    mean, std = (0.299 * v[0] + 0.587 * v[1] + 0.114 * v[2] for v in (cifar10.MEAN, cifar10.STD))
    assert np.abs(images[:, 0].numpy() - (luma - mean) / std).max() < 0.51 / 255 / std
    for number in (2, 4):
        with pytest.raises(DataError, match=f"in_channels: these images have 3 channels, .* not {number}"):
            CIFAR10(tmp_path, batch_size=8, verify=False, in_channels=number)


def test_the_command_takes_them(own, write_app, tmp_path, capsys):
    own(CIFAR100)
    app = write_app(
        data="data.cifar100:CIFAR100", data_dir=str(tmp_path), image_size=32, output_size=100, num_epochs=1
    )
    assert runner.main([f"app:{app}", "--gpus"]) == 2
    assert "--data_args verify=false" in capsys.readouterr().err
    assert runner.main([f"app:{app}", "--gpus", "--data_args", "verify=false"]) == 0
