"""Shards of batches for several processes, and loading processes that are killed."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from data.dali import DaliBatches
from data.image_folder import list_classes, list_images
from data.imagenet import MEAN, STD
from data.loaders import ImageBatches
from data.normalise import Normalise
from genutil.exceptions import RunError
from tests.data.test_imagenet import folder, imagenet, spoil  # noqa: F401  (a fixture)
from tests.tiny_data import TinyBatches
from trainers.batches import ShardableBatches, ShardedBatches, as_batches


def in_memory():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (23, 3, 8, 8), generator=generator, dtype=torch.uint8)
    options = {"shuffle": True, "crop_padding": 2, "flip": True, "seed": 4}
    return ImageBatches(images, torch.arange(23), 5, [0.5] * 3, [0.25] * 3, **options)


def check_shards(whole, shards):
    """The shards of each batch, one after the other, are the batch."""
    for epoch, start in ((0, 0), (1, 2)):
        parts = [list(shard.batches(epoch, start)) for shard in shards]
        batches = list(whole.batches(epoch, start))
        assert all(len(part) == len(batches) for part in parts)
        for number, (images, labels) in enumerate(batches):
            assert torch.equal(torch.cat([part[number][0] for part in parts]), images)
            assert torch.equal(torch.cat([part[number][1] for part in parts]), labels)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shards_of_images_in_memory(size):
    check_shards(in_memory(), [in_memory().shard(rank, size) for rank in range(size)])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("part", ["train", "val"])
def test_shards_of_image_files(folder, part, workers):  # noqa: F811
    whole = getattr(imagenet(folder), part)
    shards = [getattr(imagenet(folder, workers=workers), part).shard(rank, 3) for rank in range(3)]
    check_shards(whole, shards)


def dali_batches(folder):  # noqa: F811
    pytest.importorskip("nvidia.dali")
    train = folder / "imagenet" / "train"
    images, normalise = list_images(train, list_classes(train)), Normalise(MEAN, STD, "cpu")
    return DaliBatches(images, 24, 4, normalise, threads=1, training=True, seed=0, on_gpu=False)


SHARDABLE = {
    "memory": lambda path: in_memory(),
    "files": lambda path: imagenet(path).train,
    "files by workers": lambda path: imagenet(path, workers=1).train,
    "dali": dali_batches,
}


@pytest.mark.parametrize("kind", SHARDABLE)
def test_a_shard_is_a_copy(folder, kind):  # noqa: F811
    """The object that makes it stays whole, also while both are read, and makes other shards."""
    source = SHARDABLE[kind](folder)
    whole = [labels.tolist() for _, labels in source.batches(1)]
    shards = [source.shard(rank, 2) for rank in (0, 1)]
    assert all(shard is not source for shard in shards)
    parts = zip(*(shard.batches(1) for shard in shards), source.batches(1), strict=True)
    for (first, second, same), expected in zip(parts, whole, strict=True):
        assert first[1].tolist() + second[1].tolist() == same[1].tolist() == expected
    assert isinstance(source, ShardableBatches)


def test_corrupt_images_of_shards_are_counted_together(folder):  # noqa: F811
    data = imagenet(folder, skip_corrupt=True)
    files = [spoil(folder, "train", number) for number in (0, 1)]
    for rank in (0, 1):
        list(data.train.shard(rank, 2).batches(0))
    assert data.corrupt == set(map(str, files))


def test_batches_without_shards_are_cut():
    whole = TinyBatches(11, 4, 8, 10, seed=0)
    assert not isinstance(whole, ShardableBatches)
    check_shards(whole, [ShardedBatches(whole, rank, 3) for rank in range(3)])
    assert as_batches(whole) is whole


def children():
    """Processes of this one that are alive."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, IndexError):
            continue
        if fields[1] == str(os.getpid()) and fields[0] != "Z":
            found.append(int(entry.name))
    return set(found)


def kill_new(before):
    killed = children() - before
    for child in killed:
        os.kill(child, signal.SIGKILL)
    while children() & killed:
        time.sleep(0.01)


def test_a_killed_loading_process_is_replaced(folder, caplog):  # noqa: F811
    """In the middle of an epoch; and no error comes up anywhere else, as torch's own handler would cause."""
    expected = list(imagenet(folder, batch_size=1).train.batches(3))
    before, handler = children(), signal.getsignal(signal.SIGCHLD)
    data = imagenet(folder, batch_size=1, workers=2)
    found = []
    for number, batch in enumerate(data.train.batches(3)):
        found.append(batch)
        if number == 3:
            kill_new(before)
            time.sleep(0.2)  # until the signal has arrived
    assert signal.getsignal(signal.SIGCHLD) == handler
    assert "a loading process was killed" in caplog.text
    assert len(found) == len(expected) == 9
    for (images, labels), (others, theirs) in zip(found, expected, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, theirs)


def test_loading_processes_that_die_again_and_again_end_the_run(folder, monkeypatch):  # noqa: F811
    data = imagenet(folder, batch_size=1, workers=1)
    monkeypatch.setattr(data.train, "_files", Deadly())
    data.train._loader = data.train._make_loader()
    with pytest.raises(RunError, match=r"killed twice at batch 0 .* start fewer with --workers"):
        list(data.train.batches(0))


class Deadly(torch.utils.data.Dataset):
    """A process that reads from it is killed, as by the system when memory is short."""

    def __getitem__(self, item):
        os.kill(os.getpid(), signal.SIGKILL)
