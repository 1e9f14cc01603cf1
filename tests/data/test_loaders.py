"""Batches from memory: crops and flips distributed as torchvision's, and repeatable."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, chisquare
from torchvision import transforms
from torchvision.transforms import functional as TF

from data.loaders import ImageBatches

MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)


def random_images(count, size=32, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)


def batches(count=23, batch_size=8, size=32, **options):
    keys = {"mean": MEAN, "std": STD, "shuffle": True, "crop_padding": 4, "flip": True, **options}
    return ImageBatches(random_images(count, size), torch.arange(count), batch_size, **keys)


def everything(source, epoch, start=0):
    parts = list(source.batches(epoch, start))
    return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])


def test_every_image_once_and_a_short_last_batch():
    source = batches()
    assert len(source) == 3
    sizes = [len(labels) for _, labels in source.batches(0)]
    assert sizes == [8, 8, 7]
    _, labels = everything(source, 0)
    assert sorted(labels.tolist()) == list(range(23))
    assert labels.tolist() != list(range(23))


def test_validation_comes_in_order():
    source = batches(shuffle=False, crop_padding=0, flip=False)
    images, labels = everything(source, 0)
    assert labels.tolist() == list(range(23))
    normalise = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    expected = torch.stack([normalise(TF.to_pil_image(image)) for image in random_images(23)])
    assert images.dtype == torch.float32
    assert (images - expected).abs().max() < 1e-5


def test_a_batch_depends_on_seed_epoch_and_number_alone():
    source, twin = batches(seed=3), batches(seed=3)
    whole = list(source.batches(5))
    everything(twin, 0)  # what was drawn before changes nothing
    for start in range(4):
        rest = list(twin.batches(5, start))
        assert len(rest) == 3 - start
        for (images, labels), (again, labels_again) in zip(whole[start:], rest, strict=True):
            assert torch.equal(images, again)
            assert torch.equal(labels, labels_again)
    for other in (everything(source, 6), everything(batches(seed=4), 5)):
        assert not torch.equal(other[1], everything(source, 5)[1])
        assert not torch.equal(other[0][other[1].argsort()], everything(source, 5)[0])


def test_batches_share_no_memory():
    source = batches(count=16, shuffle=False, crop_padding=0, flip=False)
    first, second = (images for images, _ in source.batches(0))
    second_before = second.clone()
    first.fill_(9)
    assert torch.equal(second, second_before)
    assert not torch.equal(next(iter(source.batches(0)))[0], first)


def position_coded(size=32):
    """Pixel (y, x) holds 1 + y in channel 0 and 1 + x in channel 1; padding holds 0."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.stack([1 + y, 1 + x, torch.full_like(x, 7)]).byte()


def offsets_of(crops):
    """(top, left, flipped) of crops of the position-coded image, read at a pixel no crop loses."""
    centre = crops[:, :, 15, 15].long()
    neighbour = crops[:, 1, 15, 16].long()
    flipped = neighbour < centre[:, 1]
    top = centre[:, 0] - 1 - 15 + 4
    left = torch.where(flipped, centre[:, 1] - 1 - 16, centre[:, 1] - 1 - 15) + 4
    return top, left, flipped


def ours(count):
    source = ImageBatches(
        position_coded().expand(count, -1, -1, -1), torch.zeros(count, dtype=torch.long), 512, [0.0] * 3,
        [1 / 255] * 3, shuffle=True, crop_padding=4, flip=True, seed=1,
    )  # fmt: skip
    return everything(source, 0)[0]


def test_crops_are_cut_exactly():
    """Every crop equals torchvision's pad, crop and flip at the offsets it shows."""
    crops = ours(400)
    for crop, top, left, flipped in zip(crops, *offsets_of(crops), strict=True):
        expected = TF.crop(TF.pad(position_coded(), [4]), int(top), int(left), 32, 32)
        expected = TF.hflip(expected) if flipped else expected
        assert torch.equal(crop.round().byte(), expected)


def test_offsets_and_flips_have_torchvision_s_distribution():
    count = 16_200
    top, left, flipped = offsets_of(ours(count))
    assert set(top.tolist()) == set(left.tolist()) == set(range(9))
    joint = np.zeros((9, 9, 2))
    np.add.at(joint, (top, left, flipped.long()), 1)
    assert chisquare(joint.ravel()).pvalue > 1e-3  # uniform, and all three independent
    torch.manual_seed(0)
    usual = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()])
    image = position_coded()
    theirs = offsets_of(torch.stack([usual(image) for _ in range(3_000)]).float())
    for mine, other, size in zip((top, left, flipped), theirs, (9, 9, 2), strict=True):
        table = [np.bincount(mine.long(), minlength=size), np.bincount(other.long(), minlength=size)]
        assert chi2_contingency(table).pvalue > 1e-3


def test_new_crops_in_every_epoch_and_batch():
    source = ImageBatches(
        position_coded().expand(40, -1, -1, -1), torch.zeros(40, dtype=torch.long), 20, [0.0] * 3,
        [1 / 255] * 3, crop_padding=4, flip=True,
    )  # fmt: skip
    (first, _), (second, _) = source.batches(0)
    assert not torch.equal(first, second)
    assert not torch.equal(first, next(iter(source.batches(1)))[0])


@pytest.mark.parametrize("size", [8, 31])
@pytest.mark.parametrize("options", [{"flip": False}, {"crop_padding": 0}, {"crop_padding": 2}])
def test_other_sizes_and_parts(size, options):
    images, labels = everything(batches(size=size, **options), 0)
    assert images.shape == (23, 3, size, size)
    assert sorted(labels.tolist()) == list(range(23))


def test_one_channel_becomes_three():
    source = ImageBatches(
        random_images(5, channels=1), torch.zeros(5, dtype=torch.long), 5, [0.5] * 3, [0.5] * 3, flip=True
    )
    ((images, _),) = source.batches(0)
    assert images.shape == (5, 3, 32, 32)
    assert torch.equal(images[:, 0], images[:, 2])
    assert images.is_contiguous()
