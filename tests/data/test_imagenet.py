"""Folders of image files: what is listed, decoded, left out and refused."""

import logging
import shutil
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image

from data import image_folder
from data.image_folder import ImageFiles, count_workers
from data.imagenet import MEAN, STD, ImageNet, centre_crop, training_crop
from data.normalise import Normalise
from genutil.exceptions import DataError

SIZES = [(40, 30), (30, 40), (64, 64)]


def write(folder, split, name, count=3, mode="RGB"):
    place = folder / "imagenet" / split / name
    place.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        generator = np.random.default_rng([len(name), number])
        shape = (height, width, 3) if mode == "RGB" else (height, width)
        pixels = generator.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels, mode).save(place / f"bild_ä_{number}.png")
    return place


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "val"):
        for name in ("n01", "n02", "n03"):
            write(tmp_path, split, name, mode="L" if name == "n03" else "RGB")
    return tmp_path


def imagenet(folder, **keys):
    return ImageNet(**{"data_dir": folder, "batch_size": 4, "image_size": 24, "workers": 0, **keys})


def test_shapes_labels_and_normalisation(folder):
    data = imagenet(folder, test_batch_size=9)
    assert (len(data.train), len(data.val)) == (3, 1)
    ((images, labels),) = data.val.batches(0)
    assert images.shape == (9, 3, 24, 24)
    assert images.dtype == torch.float32
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    file = folder / "imagenet" / "val" / "n02" / "bild_ä_0.png"
    pixels = torch.from_numpy(np.array(centre_crop(24)(Image.open(file)))) / 255
    expected = (pixels - torch.tensor(MEAN)) / torch.tensor(STD)
    assert torch.allclose(images[3], expected.permute(2, 0, 1), atol=1e-5)
    grey = images[6] * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    assert torch.allclose(grey[0], grey[2], atol=1e-5)


def test_published_sizes_of_the_centre():
    """Shorter side to 256 pixels, then 224 of them."""
    gradient = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (128, 2)), "L").convert("RGB")
    cut = np.array(centre_crop(224)(gradient))
    assert cut.shape == (224, 224, 3)
    whole = np.array(gradient.resize((1024, 256), Image.Resampling.BILINEAR))
    assert np.array_equal(cut, whole[16:240, 400:624])


def test_batches_hang_on_seed_epoch_and_number_alone(folder):
    def all_batches(epoch, start=0, **keys):
        return list(imagenet(folder, **keys).train.batches(epoch, start))

    here, workers = all_batches(1), all_batches(1, workers=2)
    assert len(here) == 3
    for (images, labels), (others, other_labels) in zip(here, workers, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, other_labels)
    assert torch.equal(all_batches(1, start=2)[0][0], here[2][0])
    assert not torch.equal(all_batches(2)[0][0], here[0][0])
    assert not torch.equal(all_batches(1, seed=1)[0][0], here[0][0])
    before = torch.random.get_rng_state()
    all_batches(1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_workers_stay_alive_and_epochs_differ(folder, monkeypatch):
    monkeypatch.setattr(image_folder, "count_workers", lambda workers: workers)
    batches = imagenet(folder, workers=2).train
    first = [labels.tolist() for _, labels in batches.batches(0)]
    iterator = batches._loader._iterator
    broken_off = batches.batches(1)
    next(broken_off)
    broken_off.close()
    second = [labels.tolist() for _, labels in batches.batches(1)]
    assert batches._loader._iterator is iterator
    assert first != second
    assert sorted(chain(*first)) == sorted(chain(*second)) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_training_crops_are_the_published_ones(folder):
    """8 to 100 % of the area, half of them mirrored; each pixel's value is its position."""
    rows, columns = np.mgrid[0:200, 0:200].astype(np.uint8)
    place = folder / "place.png"
    Image.fromarray(np.stack([rows, columns, 0 * rows], -1)).save(place)
    files = ImageFiles([(str(place), 0)], training_crop(16), seed=0)
    areas, mirrored = [], 0
    for epoch in range(400):
        crop = files[epoch, 0][0].float()
        height, width = crop[0, -1, 0] - crop[0, 0, 0], crop[1, 0, -1] - crop[1, 0, 0]
        mirrored += int(width < 0)
        areas.append(float(height * width.abs()) / (200 * 200) * (16 / 15) ** 2)
    assert 0.07 < min(areas) < 0.15
    assert 0.85 < max(areas) < 1.05
    assert np.mean(areas) == pytest.approx(0.52, abs=0.06)
    assert 160 < mirrored < 240


def spoil(folder, split, number=1, name="n02"):
    file = sorted((folder / "imagenet" / split / name).iterdir())[number]
    file.write_bytes(file.read_bytes()[:60])
    return file


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_is_named(folder, workers):
    file = spoil(folder, "train")
    with pytest.raises(DataError, match=rf"{file}: cannot be read; replace it, or .* --skip_corrupt"):
        list(imagenet(folder, workers=workers).train.batches(0))


def test_corrupt_images_are_counted_and_left_out(folder, caplog):
    data = imagenet(folder, skip_corrupt=True)
    file = spoil(folder, "train")
    with caplog.at_level(logging.WARNING):
        for epoch in (0, 1):
            assert sum(len(labels) for _, labels in data.train.batches(epoch)) == 8
    assert data.corrupt == {str(file)}
    assert caplog.text.count("cannot be read and is left out (1 so far)") == 1


def test_batches_and_sets_without_any_readable_image(folder):
    for number in range(3):
        spoil(folder, "val", number)
    data = imagenet(folder, skip_corrupt=True, test_batch_size=3)
    batches = list(data.val.batches(0))
    assert [labels.tolist() for _, labels in batches] == [[0, 0, 0], [], [2, 2, 2]]
    assert batches[1][0].shape == (0, *batches[0][0].shape[1:])
    for name in ("n01", "n03"):
        for number in range(3):
            spoil(folder, "val", number, name)
    with pytest.raises(DataError, match="neither this nor any other image can be read"):
        list(data.val.batches(0))


def test_folders_that_are_missing_or_empty(folder, tmp_path):
    with pytest.raises(
        DataError, match=r"elsewhere/imagenet: there is no such folder; .* another folder of data"
    ):
        imagenet(tmp_path / "elsewhere")
    (folder / "imagenet" / "train" / "n09").mkdir()
    with pytest.raises(DataError, match=r"train/n09: has no images \(\.jpg.*fill it, or remove it"):
        imagenet(folder)
    assert imagenet(folder, evaluate=True).train is None
    (folder / "imagenet" / "train" / "n09").rmdir()
    write(folder, "val", "n07")
    with pytest.raises(DataError, match="val: has the class n07, which the training images lack"):
        imagenet(folder)
    with pytest.raises(DataError, match="has 3 classes, but the network has 2"):
        imagenet(folder, output_size=2)


def test_evaluation_needs_no_training_images(tmp_path):
    write(tmp_path, "val", "a")
    write(tmp_path, "val", "b")
    assert len(imagenet(tmp_path, evaluate=True).val) == 2
    with pytest.raises(DataError, match=r"imagenet/train: there is no such folder"):
        imagenet(tmp_path)
    (tmp_path / "imagenet" / "train").mkdir()
    with pytest.raises(DataError, match=r"imagenet/train: holds no folders"):
        imagenet(tmp_path)


def test_labels_are_places_among_the_training_classes(tmp_path):
    for name in ("a", "b", "c"):
        write(tmp_path, "train", name)
    write(tmp_path, "val", "c")
    ((_, labels),) = imagenet(tmp_path, evaluate=True).val.batches(0)
    assert labels.tolist() == [2, 2, 2]


def test_workers(monkeypatch, caplog):
    monkeypatch.setattr(image_folder.os, "sched_getaffinity", lambda _process: {0, 1, 2}, raising=False)
    assert count_workers("auto") == 3
    assert count_workers(2) == 2
    assert count_workers(0) == 0
    with caplog.at_level(logging.INFO):
        assert count_workers(32) == 3
    assert "workers: 32 asked for, one for each of 3 CPUs is used" in caplog.text


def test_normalise_spreads_one_channel():
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    result = Normalise([0.5, 0.25], [0.5, 0.5], "cpu")(images)
    assert torch.allclose(result.flatten(1), torch.tensor([[-1.0, -0.5], [1.0, 1.5]]))


def test_hidden_files_and_folders_are_left_out(folder):
    """What macOS, Jupyter and network storage write beside images."""
    before = imagenet(folder)
    for split in ("train", "val"):
        root = folder / "imagenet" / split
        for name in (".ipynb_checkpoints", "@eaDir", "n01/.thumbs", "n01/@eaDir"):
            (root / name).mkdir()
            shutil.copy(root / "n01" / "bild_ä_0.png", root / name / "copy.png")
        for name in ("n02/._bild_ä_0.png", "n02/.DS_Store", ".DS_Store"):
            (root / name).write_bytes(b"\x00\x05\x16\x07")
    data = imagenet(folder)
    for part in ("train", "val"):
        ours, theirs = (getattr(source, part).batches(1) for source in (data, before))
        for (images, labels), (others, same) in zip(ours, theirs, strict=True):
            assert torch.equal(images, others)
            assert torch.equal(labels, same)


def test_a_folder_of_hidden_files_alone_is_empty(folder):
    place = folder / "imagenet" / "train" / "n04"
    place.mkdir()
    (place / "._a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="train/n04: has no images"):
        imagenet(folder)


def float_image(folder, split="train"):
    path = folder / "imagenet" / split / "n02" / "float.tiff"
    Image.fromarray(np.linspace(0, 1, 900, dtype=np.float32).reshape(30, 30)).save(path)
    return path


@pytest.mark.parametrize("workers", [0, 1])
def test_images_without_a_known_range_are_named(folder, workers):
    file = float_image(folder)
    message = rf"{file}: its pixels are floats \(mode F\).*; convert it to 8 bits, or .* --skip_corrupt"
    with pytest.raises(DataError, match=message):
        list(imagenet(folder, workers=workers).train.batches(0))


def test_images_without_a_known_range_are_left_out(folder, caplog):
    file = float_image(folder)
    data = imagenet(folder, skip_corrupt=True)
    assert sum(len(labels) for _, labels in data.train.batches(0)) == 9
    assert data.corrupt == {str(file)}
    assert "whose range is not known and is left out (1 so far)" in caplog.text


def test_one_channel(folder):
    rgb, data = imagenet(folder), imagenet(folder, in_channels=1)
    weights = torch.tensor([0.299, 0.587, 0.114])
    mean, std = weights @ torch.tensor(MEAN), weights @ torch.tensor(STD)
    for (images, labels), (others, same) in zip(data.val.batches(0), rgb.val.batches(0), strict=True):
        assert torch.equal(labels, same)
        assert images.shape == (len(labels), 1, 24, 24)
        pixels = others * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
        luma = (pixels * weights.view(3, 1, 1)).sum(1)
        assert ((luma - mean) / std - images[:, 0]).abs().max() < 2 / 255 / std
    assert next(iter(data.train.batches(0)))[0].shape == (4, 1, 24, 24)
    with pytest.raises(
        DataError, match="in_channels: these images have 3 channels, or 1 as grey ones, not 2"
    ):
        imagenet(folder, in_channels=2)


def test_data_dir_may_hold_the_images_itself(tmp_path):
    keys = {"batch_size": 2, "image_size": 8, "output_size": 1, "workers": 0}
    for split in ("train", "val"):
        write(tmp_path, split, "a")
    inner = ImageNet(tmp_path / "imagenet", **keys)
    assert len(inner.train) == len(ImageNet(tmp_path, **keys).train) == 2
    shutil.copytree(tmp_path / "imagenet" / "val", tmp_path / "val")
    with pytest.raises(DataError, match="has the folders imagenet and val, so the images"):
        ImageNet(tmp_path, **keys)
    shutil.rmtree(tmp_path / "imagenet")
    assert len(ImageNet(tmp_path, **keys, evaluate=True).val) == 2
