"""Checks of batches: other types are converted where that is harmless, else refused with the class's name."""

import json

import pytest
import torch
from torch import nn

import runner
from data.loaders import ImageBatches
from genutil.checkpoint import read_checkpoint
from genutil.exceptions import ConfigError, DataError
from tests.odd_data import Loaders
from trainers.batch_checks import (
    BatchSpec,
    CheckedBatches,
    batch_spec,
    check_smallest_shard,
    label_errors_explained,
)
from trainers.batches import as_batches

SPEC = BatchSpec("data: my_data:Own", num_classes=10, in_channels=3)
IMAGES, LABELS = torch.randn(4, 3, 8, 8), torch.tensor([0, 9, 3, 3])


class Source:
    """Given batches."""

    def __init__(self, *batches):
        self.given = batches

    def __len__(self):
        return len(self.given)

    def batches(self, epoch, start=0):
        return iter(self.given[start:])


def checked(*batches, spec=SPEC):
    return list(CheckedBatches(Source(*batches), spec, "val").batches(0))


@pytest.mark.parametrize("kind", ["int64", "int32", "int16", "uint8", "int8", "uint16"])
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_labels_of_other_integer_types_are_converted(kind, shape):
    ((images, labels),) = checked((IMAGES, LABELS.reshape(shape).to(getattr(torch, kind))))
    assert images is IMAGES
    assert labels.dtype == torch.int64
    assert torch.equal(labels, LABELS)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_images_get_the_type_of_the_weights(kind):
    for network in (nn.Linear(2, 2), nn.Linear(2, 2).double(), nn.ReLU()):
        spec = batch_spec(network, "data: a:B", {"in_channels": 3})
        ((images, _),) = checked((IMAGES.to(kind), LABELS), spec=spec)
        assert images.dtype == next((p.dtype for p in network.parameters()), torch.float32)
        assert torch.equal(images, IMAGES.to(kind).to(images.dtype))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((IMAGES, LABELS - 1), r"labels must be within 0\.\.9, not -1; correct the labels"),
        ((IMAGES, LABELS + 1), r"within 0\.\.9 with output_size: 10, not 10; .* or set output_size"),
        ((IMAGES, LABELS.float()), r"labels must be integers, .*, not torch.float32; give labels.long\(\)"),
        (
            (IMAGES, nn.functional.one_hot(LABELS, 10)),
            r"one class number for each image, \(n,\), not \(4, 10\)",
        ),
        (
            (IMAGES, LABELS[:3]),
            r"one class number for each image, \(n,\), not \(3,\) with images of shape \(4, 3",
        ),
        ((IMAGES, LABELS[0]), r"not \(\) with images"),
        ((IMAGES[:, :1], LABELS), r"\(images, 3, height, width\) with in_channels: 3, not \(4, 1, 8, 8\)"),
        ((IMAGES[0], LABELS[:3]), r"not \(3, 8, 8\)"),
        (
            (IMAGES.to(torch.uint8), LABELS),
            r"floating-point numbers, not torch.uint8; .*\(images / 255 - mean\)",
        ),
        ((IMAGES.long(), LABELS), r"floating-point numbers, not torch.int64"),
        (
            (IMAGES, LABELS, LABELS),
            r"two tensors, \(images, labels\), not tuple of \(Tensor, Tensor, Tensor\)",
        ),
        ((IMAGES.numpy(), LABELS.numpy()), r"not tuple of \(ndarray, ndarray\)"),
        ({"image": IMAGES}, "not dict"),
        (IMAGES, "not Tensor"),
    ],
)
def test_other_batches_are_refused_with_the_name_of_the_class(batch, message):
    good = (IMAGES, LABELS)
    for batches in ((batch,), (good, batch)):  # the first one and a later one
        with pytest.raises(DataError, match=f"^data: my_data:Own: val: .*{message}"):
            checked(*batches)


def test_what_a_network_does_not_read_is_not_checked():
    spec = BatchSpec("data: my_data:Own")
    flat = torch.arange(8, dtype=torch.uint8).reshape(4, 2)
    ((images, labels),) = checked((flat, LABELS + 90), spec=spec)
    assert images is flat
    assert labels.max() == 99
    with pytest.raises(DataError, match="labels must be 0 or more, not -1"):
        checked((flat, LABELS - 1), spec=spec)


def test_all_labels_of_a_source_that_knows_them_are_checked_at_once():
    labels = torch.tensor([0, 1, 2, 12])
    source = ImageBatches(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), labels, 1, [0.5] * 3, [0.5] * 3)
    with pytest.raises(DataError, match=r"val: labels must be within .* not 12"):
        CheckedBatches(source, SPEC, "val")
    with pytest.raises(DataError, match="in_channels: 1, not"):
        CheckedBatches(source, BatchSpec("data: a:B", 13, 1), "val")


def test_the_check_before_training_changes_no_random_numbers():
    source = as_batches(Loaders(4, 8, 10).val)
    torch.manual_seed(5)
    expected = [labels.tolist() for _, labels in source.batches(0)]
    torch.manual_seed(5)
    whole = CheckedBatches(source, SPEC, "val")
    whole.check_first()
    assert [labels.tolist() for _, labels in whole.batches(0)] == expected
    bad = CheckedBatches(as_batches(Loaders(4, 8, 10, label=-1).val), SPEC, "val")
    with pytest.raises(DataError, match="not -1"):
        bad.check_first()


def test_iterables_that_may_not_repeat_are_not_read_in_advance():
    whole = CheckedBatches(as_batches(iter([(IMAGES, LABELS)])), SPEC, "val")
    whole.check_first()
    assert len(list(whole.batches(0))) == 1


def test_errors_that_the_loss_finds():
    message = "data: my_data:Own: label 3 has no output of the network"
    with pytest.raises(DataError, match=message), label_errors_explained(SPEC):
        nn.functional.cross_entropy(torch.zeros(4, 3), LABELS.clamp(max=3))
    message = r"data: my_data:Own: an index on the GPU is out of range, .* names it"
    with pytest.raises(DataError, match=message), label_errors_explained(SPEC):
        raise RuntimeError("CUDA error: device-side assert triggered\nmore")
    with pytest.raises(IndexError, match="mine"), label_errors_explained(SPEC):
        raise IndexError("mine")


@pytest.fixture
def run(write_app, capsys):
    """Runs an experiment with odd data; gives status, what was said, and the file of its folder."""

    def run(odd, *options, **keys):
        keys = {"data": "tests.odd_data:OddData", "data_args": odd, "num_epochs": 1, **keys}
        status = runner.main([f"app:{write_app(**keys)}", "--gpus", *map(str, options)])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return status, printed.err if status else printed.out

    return run


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"label": -1}, "train: labels must be within 0..9, not -1"),
        ({"label": 10, "place": 21}, "train: labels must be within 0..9 with output_size: 10, not 10"),
        ({"label": 10, "part": "val", "place": 9}, "val: labels must be within 0..9"),
        ({"images": "uint8"}, "train: images must be floating-point numbers, not torch.uint8"),
        ({"images": "uint8", "part": "val"}, "val: images must be floating-point numbers, not torch.uint8"),
        ({"channels": 4}, "train: images must have the shape (images, 3, height, width)"),
        ({"labels": "float32"}, "train: labels must be integers"),
        ({"columns": 2}, "train: labels must be one class number for each image"),
    ],
)
def test_the_command_refuses_odd_data_in_one_line(run, odd, message):
    status, said = run(odd)
    assert status == 2
    assert f"data: tests.odd_data:OddData: {message}" in said
    assert len(said.strip().splitlines()) == 1


def test_validation_is_checked_before_training(run, tmp_path):
    assert run({"part": "val", "images": "uint8"})[0] == 2
    assert not list(tmp_path.rglob("*.pt"))
    assert not (tmp_path / "runs").exists()


def test_harmless_types_give_the_same_training(run, tmp_path):
    weights = []
    for number, odd in enumerate(({}, {"labels": "int32"}, {"images": "float64"})):
        assert run(odd, "--name", f"n{number}")[0] == 0
        weights.append(read_checkpoint(tmp_path / "checkpoints" / f"n{number}" / "last.pt")["model"])
    for other in weights[1:]:
        assert all(torch.equal(value, other[name]) for name, value in weights[0].items())


def test_a_network_of_one_s_own_gets_what_it_takes(run):
    keys = {"model": "tests.odd_data:OwnNetwork", "topk": [1]}
    odd = {"images": "uint8", "channels": 2, "part": "both"}
    assert run(odd, output_size=5, **keys)[0] == 0
    status, said = run({**odd, "label": 7}, output_size=5, **keys)
    assert status == 2
    assert "data: tests.odd_data:OddData: label 7 has no output of the network" in said


@pytest.mark.parametrize("channels", [1, 4])
def test_in_channels_of_digits(run, tmp_path, channels):
    status, said = run({}, "--in_channels", channels, data="data.digits:Digits", batch_size=512, num_epochs=1)
    if channels == 1:
        assert status == 0
        results = next((tmp_path / "runs").glob("*/results.json"))
        assert json.loads(results.read_text())["epochs"] == 1
    else:
        assert status == 2
        assert said.startswith(
            "in_channels: the images of digits are grey: 1 channel, or 3 equal ones, not 4"
        )


@pytest.mark.parametrize(
    ("images", "batch_size", "processes", "parts", "size", "refused"),
    [
        (12, 4, 1, 1, 32, False), (13, 4, 1, 1, 32, True), (14, 4, 1, 1, 32, False),
        (13, 4, 1, 1, 64, False), (12, 1, 1, 1, 32, True), (18, 8, 2, 1, 32, True),
        (20, 8, 2, 1, 32, False), (17, 8, 2, 1, 32, True), (22, 8, 1, 2, 32, False),
        (19, 8, 1, 2, 32, True), (17, 8, 1, 2, 32, True),
    ],
)  # fmt: skip
def test_steps_of_single_images_are_refused_where_maps_have_one_pixel(
    images, batch_size, processes, parts, size, refused
):
    network = nn.Sequential(nn.Conv2d(3, 2, 32, stride=32), nn.BatchNorm2d(2))
    before = network[1].running_mean.clone()
    arguments = (network, (3, size, size), images, batch_size, parts, processes)
    if refused:
        with pytest.raises(ConfigError, match="a process has one image or none"):
            check_smallest_shard(*arguments)
    else:
        check_smallest_shard(*arguments)
    assert all(module.training for module in network.modules())
    assert torch.equal(network[1].running_mean, before)
