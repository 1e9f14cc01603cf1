"""Published checkpoint files are read as they are, and nothing in them is executed."""

import os
import sys

import numpy as np
import pytest
import torch
from torch import nn

from genutil.checkpoint import load_weights, read_checkpoint
from genutil.exceptions import CheckpointError
from tests.helpers.published_files import published_content, write_published
from wirings.legacy_pickle import ScalarMeter


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


NUMPY_SCALAR = np.float64(1).__reduce__()[0]
"""The function by which NumPy's numbers are pickled; its module has another name before NumPy 2."""


@pytest.mark.parametrize("numpy_names", ["numpy.core", "numpy._core"])
def test_published_file_is_read(tmp_path, model, numpy_names):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    path = tmp_path / "dnw_x225.pt"
    write_published(path, published_content(model, optimizer, 7, 50), numpy_names)
    assert f"c{numpy_names}.multiarray\nscalar".encode() in path.read_bytes()
    assert "train" not in sys.modules
    content = read_checkpoint(path)
    accuracy, loss = content["meters"][0]["top1_accuracy"], content["meters"][1]["CELoss"]
    assert type(accuracy) is ScalarMeter
    assert (accuracy.name, accuracy.steps, accuracy.values) == ("top1_accuracy", [0, 1, 2], [0.5, 0.25, 1])
    assert loss.values.values == [0.0, 1.0, 2.0]
    momentum = content["optimizer"]["state"][0]["momentum_buffer"]
    assert torch.equal(momentum, optimizer.state_dict()["state"][0]["momentum_buffer"])
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    info = load_weights(path, other)
    assert (info.epoch, info.step, info.best_val, info.origin) == (7, 50, 12.5, "published")
    assert torch.equal(other[0].weight, model[0].weight)


def test_big_endian_and_integer_scalars(tmp_path, model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    content = published_content(model, optimizer, 0, 0)
    content["best_val"] = np.dtype(">f8").type(3.5)
    content["meters"] = (np.array([1, 2], ">i4"), np.int64(3), np.bool_(True))
    write_published(tmp_path / "x.pt", content)
    array, number, flag = read_checkpoint(tmp_path / "x.pt")["meters"]
    assert (array.values, number, flag) == ([1, 2], 3, True)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)


class Calls:
    """Pickles as the call of a function that published files may name, with other arguments."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize(
    "value",
    [
        Hostile(),
        np.array([Hostile()], dtype=object),
        np.zeros(1, dtype="V8"),
        np.array(["text"]),
        Calls(np.dtype, "O"),
        Calls(np.dtype, [("a", "f8")]),
        Calls(NUMPY_SCALAR, 3, b"abc"),
        Calls(NUMPY_SCALAR, np.dtype("f8"), "text"),
        Calls(NUMPY_SCALAR, np.dtype("f8"), b"short"),
        Calls(eval, "1 + 1"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_hostile_objects_are_refused(tmp_path, monkeypatch, model, value):
    monkeypatch.chdir(tmp_path)
    content = published_content(model, torch.optim.SGD(model.parameters(), lr=0.1), 0, 0)
    write_published(tmp_path / "x.pt", {**content, "meters": value})
    with pytest.raises(CheckpointError, match=r"x\.pt"):
        read_checkpoint("x.pt")
    assert not (tmp_path / "executed").exists()


def test_stubs_are_gone_after_reading(tmp_path, model):
    write_published(
        tmp_path / "x.pt", published_content(model, torch.optim.SGD(model.parameters(), lr=0.1), 0, 0)
    )
    read_checkpoint(tmp_path / "x.pt")
    kept = [stub for stub in torch.serialization.get_safe_globals() if "ScalarMeter" in str(stub)]
    assert kept == []
