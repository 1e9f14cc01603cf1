"""Names and keys of checkpoint files, in both published forms."""

from pathlib import Path

import pytest
import torch

from genutil.checkpoint.file_names import GRAPH_FORMAT, CheckpointFormat, from_resnet_keys, to_resnet_keys
from genutil.checkpoint.serialization import checkpoint_info, read_checkpoint
from genutil.runs.checkpoint_folder import CheckpointFolder

RESNET = CheckpointFormat(
    last="checkpoint.pth.tar", best="model_best.pth.tar", first=None, numbered="checkpoint-{}.pth.tar",
    layout="resnet",
)  # fmt: skip
STATE = {"model": {"w": torch.ones(2)}, "last_epoch": 4, "best_val": 12.5, "iter": 30, "optimizer": {}}


def test_which_files_are_a_trainings_own():
    own = {"checkpoint.pth.tar", "model_best.pth.tar", "checkpoint-12.pth.tar"}
    others = {
        "last.pt",
        "model.pth.tar",
        "checkpoint-x.pth.tar",
        "checkpoint-1.pth.tar.old",
        "resnet50.pth.tar",
        "None",
    }
    assert {name for name in own | others if RESNET.is_checkpoint(name)} == own
    assert RESNET.number("checkpoint-12.pth.tar") == 12
    assert RESNET.number("checkpoint.pth.tar") is None
    for name in ("init.pt", "last.pt", "best.pt", "epoch_0.pt", "epoch_150.pt"):
        assert GRAPH_FORMAT.is_checkpoint(name)
    assert not GRAPH_FORMAT.is_checkpoint("mine.pt")


def test_keys_there_and_back():
    content = to_resnet_keys(STATE)
    assert content.keys() == {"state_dict", "epoch", "best_prec1", "iter", "optimizer"}
    assert (content["epoch"], content["best_prec1"]) == (5, 12.5)
    assert from_resnet_keys(content) == STATE


@pytest.mark.parametrize("file_format", [GRAPH_FORMAT, RESNET])
def test_files_of_both_formats_read_alike(file_format, tmp_path):
    folder = CheckpointFolder(tmp_path / "run", file_format=file_format)
    folder.save(file_format.last, STATE)
    folder.close()
    raw = torch.load(tmp_path / "run" / file_format.last, weights_only=True)
    assert ("state_dict" in raw, "model" in raw) == (file_format is RESNET, file_format is GRAPH_FORMAT)
    content = read_checkpoint(tmp_path / "run" / file_format.last)
    content.pop("format")
    torch.testing.assert_close(content, STATE)
    assert checkpoint_info(content, "x").epoch == 4


def test_a_new_run_moves_its_own_kind_of_files_aside(tmp_path):
    names = ["checkpoint.pth.tar", "checkpoint-3.pth.tar", "model.pth.tar", "mine.pth.tar", "last.pt"]
    for name in names:
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / name).touch()
    CheckpointFolder(tmp_path / "run", file_format=RESNET, extra_files=("model.pth.tar",)).close()
    assert {file.name for file in (tmp_path / "run.1").iterdir()} == set(names[:3])
    assert set(names[3:]) <= {file.name for file in (tmp_path / "run").iterdir()}


@pytest.mark.parametrize("folder", ["./", "..", "sub/.."])
def test_files_of_the_current_folder_stay_within_it(tmp_path, monkeypatch, folder):
    (tmp_path / "here" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "sub" if folder == ".." else tmp_path / "here")
    for number in (1, 2):
        (tmp_path / "here" / "checkpoint.pth.tar").touch()
        CheckpointFolder(Path(folder), file_format=RESNET).close()
        assert (tmp_path / "here" / f"earlier.{number}" / "checkpoint.pth.tar").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_name_under_model_does_not_hide_the_weights_under_state_dict(tmp_path):
    """As some programs write the architecture's name."""
    weights = {"w": torch.ones(2)}
    torch.save({"state_dict": weights, "model": "resnet50"}, tmp_path / "x.pt")
    torch.testing.assert_close(read_checkpoint(tmp_path / "x.pt")["model"], weights)
