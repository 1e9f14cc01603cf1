"""Networks, data sets, optimizers and schedules of the user's own that raise, or give the wrong thing."""

import re
import sys

import pytest

import runner
from genutil.user_code import errors_in_user_code

MINE = """
import sys
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

class Net(nn.Module):
    def __init__(self, output_size):
        super().__init__()
        self.fc = nn.Linear(3, output_size)
    def forward(self, images):
        return self.fc(images.mean((2, 3)))

class Raising(Net):
    def __init__(self, output_size):
        raise ValueError("no such size\\nsecond line")
class Leaving(Net):
    def __init__(self, output_size):
        sys.exit(0)
class RaisingForward(Net):
    def forward(self, images):
        return helper(images)
def helper(images):
    raise KeyError("stage4")
class LeavingForward(Net):
    def forward(self, images):
        sys.exit("done")
class RaisingBackward(Net):
    def forward(self, images):
        return Cubed.apply(super().forward(images))
class Cubed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x ** 3
    @staticmethod
    def backward(ctx, gradient):
        raise NotImplementedError("no gradient")
class InPlace(Net):
    def forward(self, images):
        y = super().forward(images).exp()
        return y.mul_(y.sigmoid_())
class Wrong(Net):
    def forward(self, images):
        return nn.functional.conv2d(images, torch.ones(1, 7, 1, 1))
class Pair(Net):
    def forward(self, images):
        return super().forward(images), None
class Wide(Net):
    def __init__(self, output_size):
        super().__init__(output_size + 1)
class Flat(Net):
    def forward(self, images):
        return super().forward(images).flatten()
class Classes(Net):
    def forward(self, images):
        return super().forward(images).long()
class Nothing(nn.Module):
    def forward(self, images):
        return images.mean((2, 3)).repeat(1, 4)[:, :10]
number = 3

def raising(parameters): raise RuntimeError("no optimizer today")
def no_optimizer(parameters): return list(parameters)
def flat(lr): return lambda step: lr
def no_schedule(lr): return lr
def texts(lr): return lambda step: "0.1"
def nothing(lr): return lambda step: None
def infinite(lr): return lambda step: float("inf")
def late(lr): return lambda step: lr if step < 2 else 1 / 0

class Data:
    def __init__(self, image_size):
        images, labels = torch.randn(8, 3, image_size, image_size), torch.arange(8)
        self.train = self.val = DataLoader(TensorDataset(images, labels), batch_size=4)
class Broken(Dataset):
    def __len__(self): return 4
    def __getitem__(self, place): raise OSError("disk on fire")
class BrokenData(Data):
    def __init__(self, image_size):
        super().__init__(image_size)
        self.train = DataLoader(Broken(), batch_size=2)
class BrokenWorkers(Data):
    def __init__(self, image_size):
        super().__init__(image_size)
        self.train = DataLoader(Broken(), batch_size=2, num_workers=1)
class NoVal(Data):
    def __init__(self, image_size):
        super().__init__(image_size)
        del self.val
class Empty(Data):
    def __init__(self, image_size):
        super().__init__(image_size)
        self.train = []
class Endless(Data):
    def __init__(self, image_size):
        super().__init__(image_size)
        self.train = (batch for batch in self.val)
class NoBatches(Data):
    def __init__(self, image_size):
        super().__init__(image_size)
        self.train = 3
"""


@pytest.fixture
def refused(write_app, tmp_path, monkeypatch, capsys):
    """What an experiment with parts of the module `mine` says when it is refused, and whether it began."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the command adds the current folder

    sys.modules.pop("mine", None)  # that of another test

    def refused(source=MINE, **keys):
        (tmp_path / "mine.py").write_text(source)
        app = write_app(**{"model": "mine:Net", "data": "mine:Data", "num_epochs": 2, "layers": None, **keys})
        status = runner.main([f"app:{app}"])
        said = capsys.readouterr().err
        assert status == 2, said
        return said, (tmp_path / "runs").exists()

    yield refused
    sys.modules.pop("mine", None)


def own_frames(text):
    """The functions of a traceback, all of which must be of the user's module or below it."""
    assert "Traceback (most recent call last):" in text
    files = re.findall(r'File "([^"]+)"', text)
    assert files[0].endswith("mine.py")
    assert not [
        file
        for file in files
        if re.search(r"/(genutil|trainers|models|data)/|(experiment|construction)\.py", file)
    ]
    return re.findall(r", in (\S+)", text)


@pytest.mark.parametrize(
    ("keys", "line", "functions"),
    [
        ({"model": "mine:Raising"}, "model: mine:Raising raised ValueError: no such size", ["__init__"]),
        ({"model": "mine:Leaving"}, "model: mine:Leaving raised SystemExit: 0", ["__init__"]),
        (
            {"model": "mine:RaisingForward"},
            "model: mine:RaisingForward raised KeyError: 'stage4'",
            ["forward", "helper"],
        ),
        ({"model": "mine:LeavingForward"}, "model: mine:LeavingForward raised SystemExit: done", ["forward"]),
        (
            {"model": "mine:RaisingBackward"},
            "model: mine:RaisingBackward or data: mine:Data raised NotImplementedError: no gradient",
            ["backward"],
        ),
        ({"model": "mine:Wrong"}, "model: mine:Wrong raised RuntimeError: Given groups=1", ["forward"]),
        ({"optimizer": "mine:raising"}, "optimizer: mine:raising raised RuntimeError: no opt", ["raising"]),
        (
            {"lr_scheduler": "mine:late"},
            "lr_scheduler: mine:late: the function for step 2 raised ZeroDivisionError: division by zero",
            ["<lambda>"],
        ),
        ({"data": "mine:BrokenData"}, "raised OSError: disk on fire", ["__getitem__"]),
    ],
)
def test_code_that_raises_is_shown_with_its_own_traceback(refused, keys, line, functions):
    text, _ = refused(**keys)
    shown = [part for part in text.splitlines() if " raised " in part]
    assert len(shown) == 1 and line in shown[0]
    assert own_frames(text)[: len(functions)] == functions


def test_code_that_a_loading_process_runs(refused):
    text, _ = refused(data="mine:BrokenWorkers")
    assert "data: mine:BrokenWorkers raised OSError: Caught OSError in DataLoader worker process 0" in text
    assert text.count("Traceback (most recent call last):") == 1
    assert "disk on fire" in text


def test_an_error_of_the_backward_pass_itself(refused):
    text, _ = refused(model="mine:InPlace")
    assert "model: mine:InPlace (in the backward pass) raised RuntimeError: one of the variables" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model": "mine:Pair"}, "model: mine:Pair must return logits, a tensor of shape"),
        ({"model": "mine:Wide"}, "(images, output_size) = (2, 10), got (2, 11)"),
        ({"model": "mine:Flat"}, "(images, output_size) = (2, 10), got (20,)"),
        ({"model": "mine:Classes"}, "of floating-point numbers, got torch.int64"),
        ({"model": "mine:Nothing"}, "model: mine:Nothing has no parameters to train"),
        ({"model": "mine:number"}, "model: mine:number is not a class or function"),
        ({"model": "mine:flat"}, "model: mine:flat is not a torch.nn.Module"),
        ({"optimizer": "mine:no_optimizer"}, "must return a torch.optim.Optimizer, got list"),
        ({"lr_scheduler": "mine:no_schedule"}, "must return a function from the number of steps done"),
        ({"lr_scheduler": "mine:texts"}, "the function for step 0 must return a finite number, got 0.1"),
        ({"lr_scheduler": "mine:nothing"}, "the function for step 0 must return a finite number, got None"),
        ({"lr_scheduler": "mine:infinite"}, "must return a finite number, got inf"),
        ({"data": "mine:NoVal"}, "data: mine:NoVal must have the attribute val, which holds batches"),
        ({"data": "mine:Empty"}, "data: mine:Empty: train has no batches"),
        ({"data": "mine:Endless"}, "data: mine:Endless: train must have a length, the number of its batches"),
        ({"data": "mine:NoBatches"}, "train must be a DataLoader or have a method batches(), got int"),
    ],
)
def test_wrong_things_are_refused_before_anything_is_written(refused, keys, message):
    text, began = refused(**keys)
    assert message in text
    assert "Traceback" not in text
    assert not began


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise ValueError('not today')", "model: importing mine raised ValueError: not today"),
        ("import sys\nsys.exit(0)", "model: importing mine raised SystemExit: 0"),
        ("def Net(:", "model: importing mine raised SyntaxError: invalid syntax"),
        ("from torch import nothing_of_this_name", "model: importing mine raised ImportError: cannot import"),
    ],
)
def test_a_module_that_cannot_be_imported(refused, source, message):
    text, began = refused(source)
    assert text.startswith(message) and "mine.py" in text
    assert "genutil" not in text and not began


def test_an_error_of_the_project_s_own_keeps_its_traceback():
    with (
        pytest.raises(ZeroDivisionError),
        errors_in_user_code({"model": "models.graphs:Net"}),
    ):
        raise ZeroDivisionError
