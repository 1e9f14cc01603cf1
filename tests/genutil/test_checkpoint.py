"""Checkpoint files: written whole, read safely, refused with a reason."""

import os
import pickle

import pytest
import torch
from torch import nn

from genutil.checkpoint import load_weights, read_checkpoint, save_checkpoint
from genutil.exceptions import CheckpointError
from genutil.runs.checkpoint_folder import CheckpointFolder
from genutil.runs.past_runs import read_run_marker
from genutil.runs.resume_point import find_checkpoint


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_round_trip(tmp_path, model):
    path = tmp_path / "a" / "last.pt"
    save_checkpoint(
        path, {"model": model.state_dict(), "optimizer": {}, "last_epoch": 4, "iter": 50, "best_val": 9.5}
    )
    torch.manual_seed(1)
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    info = load_weights(path, other)
    assert (info.epoch, info.step, info.best_val, info.origin) == (4, 50, 9.5, "native")
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert [file.name for file in path.parent.iterdir()] == ["last.pt"]


def test_weights_alone_and_wrapped_names(tmp_path, model):
    wrapped = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"model": wrapped}, tmp_path / "best.pt")
    assert load_weights(tmp_path / "best.pt", model).origin == "weights"
    torch.save(model.state_dict(), tmp_path / "bare.pt")
    assert load_weights(tmp_path / "bare.pt", model).epoch is None
    torch.save({"model": wrapped, "optimizer": {}, "last_epoch": 3}, tmp_path / "published.pt")
    assert load_weights(tmp_path / "published.pt", model).origin == "published"
    torch.save({"model": wrapped}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    load_weights(tmp_path / "old.pt", model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("0.weight"), "misses 0.weight"),
        (lambda s: s.update(extra=torch.zeros(1)), "has extra, which the model lacks"),
        (lambda s: s.update({"0.bias": torch.zeros(5)}), r"0.bias has shape \[5\], the model's is \[4\]"),
        (lambda s: s.update({"0.bias": 3}), "0.bias is not a tensor"),
        (lambda s: s.update({"0.bias": s["0.bias"].cfloat()}), "0.bias is complex, the model's is real"),
        (lambda s: s.update({"0.bias": s["0.bias"] > 0}), "0.bias is integer, the model's is real"),
        (
            lambda s: s.update({"0.weight": s["0.weight"].to_sparse()}),
            "0.weight is a torch.sparse_coo",
        ),
    ],
)
def test_weights_that_do_not_fit_leave_the_model_alone(tmp_path, model, change, message):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {name: value + 1 for name, value in model.state_dict().items()}
    change(state)
    torch.save({"model": state}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=message):
        load_weights(tmp_path / "x.pt", model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_counts_that_are_no_numbers_leave_the_model_alone(tmp_path, model):
    before = model[0].weight.clone()
    state = {name: value + 1 for name, value in model.state_dict().items()}
    torch.save({"model": state, "best_val": "93%"}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt: its best_val is not a number but '93%'"):
        load_weights(tmp_path / "x.pt", model)
    assert torch.equal(model[0].weight, before)


def test_many_differences_are_counted(tmp_path, model):
    torch.save({"model": {f"a{i}": torch.zeros(1) for i in range(20)}}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="and 22 more differences"):
        load_weights(tmp_path / "x.pt", model)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {}, "meters": Hostile()}, "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="nothing of it was executed"):
        read_checkpoint("x.pt")
    (tmp_path / "y.pt").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(CheckpointError):
        read_checkpoint("y.pt")
    assert not (tmp_path / "executed").exists()


def test_truncated_at_any_length(tmp_path, model):
    save_checkpoint(tmp_path / "whole.pt", {"model": model.state_dict()})
    content = (tmp_path / "whole.pt").read_bytes()
    for length in {0, 1, 10, len(content) // 2, len(content) - 1}:
        (tmp_path / "part.pt").write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"part\.pt"):
            read_checkpoint(tmp_path / "part.pt")


@pytest.mark.parametrize("content", [{"weights": 1}, [1, 2], {}, {"model": 3}])
def test_foreign_content(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="it has no weights under `model`"):
        read_checkpoint(tmp_path / "x.pt")


def test_foreign_file(tmp_path):
    (tmp_path / "x.pt").write_text("model: weights\n")
    with pytest.raises(CheckpointError, match=r"x\.pt: is damaged"):
        read_checkpoint(tmp_path / "x.pt")


def test_missing_file_and_folder(tmp_path):
    (tmp_path / "last.pt").write_text("")
    with pytest.raises(CheckpointError, match=r"there is no such file; did you mean last\.pt\?"):
        read_checkpoint(tmp_path / "lost.pt")
    with pytest.raises(CheckpointError, match="is a folder; name a checkpoint file in it"):
        read_checkpoint(tmp_path)


def test_a_failed_write_keeps_the_old_file(tmp_path, model, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"model": model.state_dict()})
    before = path.read_bytes()

    def full_disk(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(CheckpointError, match=r"could not be written .*No space left.*free some space"):
        save_checkpoint(path, {"model": {}})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_folder_moves_earlier_files_aside_unless_they_are_gone_on_from(tmp_path):
    path = tmp_path / "wave"
    for _ in range(2):
        folder = CheckpointFolder(path)
        folder.save("last.pt", {"model": {}})
        folder.close()
    assert (tmp_path / "wave.1" / "last.pt").is_file()
    CheckpointFolder(path, path / "last.pt").close()
    assert not (tmp_path / "wave.2").exists()
    CheckpointFolder(path, tmp_path / "elsewhere.pt").close()
    assert (tmp_path / "wave.2" / "last.pt").is_file()


def test_resume_auto(tmp_path):
    def found(resume, required=True):
        return find_checkpoint(tmp_path, resume, required, "last.pt")

    assert found(None) is found("auto", required=False) is None
    with pytest.raises(CheckpointError, match=r"finds no .*/last.pt; train this experiment first"):
        found("auto")
    (tmp_path / "last.pt").write_text("")
    assert found("auto") == tmp_path / "last.pt"
    assert found("x.pt").name == "x.pt"


@pytest.mark.parametrize("note", ["", "3", "[]", "{}", '{"run_id": "a"}', '{"run_id": "a", "folder": 1}'])
def test_a_damaged_note_of_an_earlier_start_is_none(tmp_path, note):
    (tmp_path / ".run").write_text(note)
    assert read_run_marker(tmp_path, "a") is None


def test_a_file_that_asks_for_too_much_memory(tmp_path, monkeypatch):
    """A damaged length in an old file: torch then asks for more than there is."""

    def load(*_args, **_keys):
        raise MemoryError

    monkeypatch.setattr(torch, "load", load)
    (tmp_path / "x.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="is damaged, or needs more memory than this process may use"):
        read_checkpoint(tmp_path / "x.pt")
