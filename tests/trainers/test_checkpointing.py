"""When checkpoints are written and kept, and what a full disk or a removed folder does."""

import functools
import gc
import json
import os
import resource
import shutil
import weakref

import pytest
import torch

import runner
from genutil.checkpoint import read_checkpoint, save_checkpoint
from genutil.checkpoint.file_names import GRAPH_FORMAT
from genutil.config import load_config
from genutil.distributed.rank_info import RankInfo
from genutil.exceptions import CheckpointError, UserError
from genutil.runs import resume_point
from genutil.runs.checkpoint_folder import CheckpointFolder
from genutil.runs.past_runs import has_saved, read_run_marker
from genutil.runs.run_folder import RunFolder, run_settings
from tests.helpers.equality import same
from tests.helpers.processes import ForkedCommand
from trainers.callback_base import Callback, CallbackList
from trainers.callbacks import TensorBoard
from trainers.checkpointing import CheckpointSaver
from trainers.trainer import Trainer

STATE = ("model", "optimizer", "last_epoch", "best_val", "iter", "scheduler", "scaler", "rng")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints" / "tiny"


def run(path, *argv):
    return runner.main([f"app:{path}", *map(str, argv)])


def metrics(tmp_path):
    return [
        json.loads(line)
        for path in sorted((tmp_path / "runs").glob("*/metrics.jsonl"))
        for line in path.read_text().splitlines()
    ]


@pytest.mark.parametrize("every", [1, 2, 4])
def test_training_is_resumed_within_an_epoch_at_the_next_batch(write_app, tmp_path, every, monkeypatch):
    """From each last.pt of an epoch, training reaches the same end."""
    app = write_app(data_args={"num_images": 40}, graph="td", rho=0.5)
    kept = []
    save = CheckpointFolder.save

    def keep(self, name, state):
        save(self, name, state)
        if name == "last.pt" and state["epoch_progress"]["batch"]:
            kept.append(tmp_path / f"step{state['iter']}.pt")
            shutil.copy(self.path / name, kept[-1])

    monkeypatch.setattr(CheckpointFolder, "save", keep)
    assert run(app, "--checkpoint_interval_steps", every) == 0
    assert [path.stem for path in kept] == [f"step{n}" for n in range(every, 10, every) if n != 5]
    monkeypatch.setattr(CheckpointFolder, "save", save)
    whole, lines = read_checkpoint(tmp_path / "checkpoints" / "tiny" / "last.pt"), metrics(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    path = kept[len(kept) // 2]
    assert run(app, "--resume", path, "--name", "again") == 0
    again = read_checkpoint(tmp_path / "checkpoints" / "again" / "last.pt")
    for key in STATE:
        assert same(whole[key], again[key]), key
    losses = [line["CELoss"] for line in metrics(tmp_path)]
    assert losses == [line["CELoss"] for line in lines][-len(losses) :]


def test_how_many_stay(write_app, folder):
    assert run(write_app(num_epochs=7), "--checkpoint_interval", 2, "--keep_last", 2) == 0
    assert {path.name for path in folder.glob("*.pt")} == {
        "init.pt", "best.pt", "last.pt", "epoch_4.pt", "epoch_6.pt"
    }  # fmt: skip


def test_retention_touches_nothing_else(tmp_path):
    checkpoints = CheckpointFolder(tmp_path)
    for name in ("epoch_9.pt", "epoch_10.pt", "epoch_100.pt", "epoch_best.pt", "epoch_9.pt.txt", "best.pt"):
        (tmp_path / name).touch()
    checkpoints.keep_last(1)
    checkpoints.close()
    left = {path.name for path in tmp_path.iterdir()} - {".lock"}
    assert left == {"epoch_100.pt", "epoch_best.pt", "epoch_9.pt.txt", "best.pt"}


def test_retention_keeps_the_latest_files_where_training_branched_back(tmp_path):
    checkpoints = CheckpointFolder(tmp_path)
    for seconds, epoch in enumerate((50, 90, 100, 60)):  # resumed from epoch 50
        (tmp_path / f"epoch_{epoch}.pt").touch()
        os.utime(tmp_path / f"epoch_{epoch}.pt", (seconds, seconds))
    checkpoints.keep_last(2)
    assert {path.name for path in tmp_path.glob("*.pt")} == {"epoch_100.pt", "epoch_60.pt"}
    (tmp_path / "epoch_70.pt").touch()
    checkpoints.keep_last(2)
    checkpoints.close()
    assert {path.name for path in tmp_path.glob("*.pt")} == {"epoch_60.pt", "epoch_70.pt"}


def test_a_restart_before_the_first_checkpoint_resumes_from_the_named_file(tmp_path):
    """The last.pt in the folder is that of an earlier run until the restarted run has written its own."""
    path, rank_info = tmp_path / "tiny", RankInfo(restarts=1, run_id="night-2")
    for name in ("last.pt", "epoch_0.pt"):
        save_checkpoint(path / name, {"model": {"w": torch.ones(1)}})
    first = CheckpointFolder(path, path / "epoch_0.pt", "night-2")
    first.write_run_marker("night-2", tmp_path / "run")

    def resumed():
        named = str(path / "epoch_0.pt")
        start = resume_point.find_resume_point(path, named, rank_info, False, GRAPH_FORMAT)
        return start.path.name, start.found_by

    assert resumed() == ("epoch_0.pt", "file")
    first.save("best.pt", {"model": {}})
    assert resumed() == ("epoch_0.pt", "file")
    first.save("last.pt", {"model": {"w": torch.ones(1)}})
    first.close()
    assert resumed() == ("last.pt", "restart")
    second = CheckpointFolder(path, path / "last.pt", "night-2")
    second.write_run_marker("night-2", tmp_path / "run")
    assert resumed() == ("last.pt", "restart")
    shutil.rmtree(path)
    second.save("best.pt", {"model": {}})
    second.close()
    (path / "last.pt").touch()
    assert not has_saved(path, "night-2")


def test_a_file_system_without_locks_is_not_another_run(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    message = r"tiny: cannot be used for checkpoints \(.*No locks available\)"
    with pytest.raises(CheckpointError, match=message):
        CheckpointFolder(tmp_path / "tiny")


def test_a_later_start_of_the_same_run_moves_nothing(tmp_path):
    path = tmp_path / "tiny"
    first = CheckpointFolder(path, run_id="night-1")
    first.write_run_marker("night-1", tmp_path / "run")
    (path / "init.pt").touch()
    first.close()
    assert read_run_marker(path, "night-1") == tmp_path / "run"
    assert (
        read_run_marker(path, "night-2")
        is read_run_marker(path, "")
        is read_run_marker(tmp_path, "night-1")
        is None
    )
    CheckpointFolder(path, run_id="night-1").close()
    assert (path / "init.pt").exists()
    CheckpointFolder(path, run_id="night-2").close()
    assert not (path / "init.pt").exists()


def test_a_later_start_tells_one_story(write_app, tmp_path):
    config = load_config(write_app())
    first = RunFolder(run_settings(config))
    for step in (3, 6, 9):
        first.add_metrics({"step": step})
    with open(first.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 1')  # cut off by the failure
    second = RunFolder(run_settings(config), earlier_dir=first.path, step=6)
    second.add_metrics({"step": 9, "again": True})
    assert second.path == first.path
    lines = (second.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 3}, {"step": 6}, {"step": 9, "again": True}]


def limit_file_size(size):
    """No file may become larger, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_leaves_the_last_checkpoint_whole(write_app, folder):
    app = write_app(lr_scheduler="multistep")
    assert run(app) == 0
    before = read_checkpoint(folder / "last.pt")
    limit = functools.partial(limit_file_size, (folder / "last.pt").stat().st_size - 5000)
    process = ForkedCommand([f"app:{app}", "--resume", "auto", "--num_epochs", "9"], limit)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert ".pt: could not be written" in errors
    assert "free some space or choose another folder" in errors
    assert "Traceback" not in errors
    assert same(read_checkpoint(folder / "last.pt"), before)
    assert not [path for path in folder.iterdir() if path.name.endswith(".partial")]


class Removes(Callback):
    """Removes folders in the middle of a training."""

    def __init__(self, *folders):
        self.folders = folders

    def on_epoch_end(self, trainer):
        if trainer.epoch == 0:
            for path in self.folders:
                shutil.rmtree(path)


def test_a_removed_folder_is_made_again(write_app, tmp_path, folder, monkeypatch, caplog):
    fit = Trainer.fit

    def fit_without_folders(self):
        removes = Removes(folder, next((tmp_path / "runs").iterdir()))
        self.callbacks = CallbackList((*self.callbacks.callbacks, removes))
        return fit(self)

    monkeypatch.setattr(Trainer, "fit", fit_without_folders)
    assert run(write_app()) == 0
    assert read_checkpoint(folder / "last.pt")["last_epoch"] == 1
    assert caplog.text.count("was removed and is created again") == 2
    assert read_run_marker(folder) == next((tmp_path / "runs").iterdir())
    assert [line["epoch"] for line in metrics(tmp_path)] == [1, 1]
    with pytest.raises(CheckpointError, match="another run is writing"):
        one = CheckpointFolder(folder)
        CheckpointFolder(folder)
    one.close()


def test_a_loaded_checkpoint_is_not_kept_in_memory(write_app, folder, monkeypatch):
    app, loaded = write_app(num_epochs=1, lr_scheduler="multistep"), []
    assert run(app) == 0
    read, fit = resume_point.read_checkpoint, Trainer.fit

    def noting(path):
        content = read(path)
        loaded.extend(weakref.ref(weight) for weight in content["model"].values())
        return content

    def checking(trainer):
        gc.collect()
        assert loaded and not any(reference() is not None for reference in loaded)
        return fit(trainer)

    monkeypatch.setattr(resume_point, "read_checkpoint", noting)
    monkeypatch.setattr(Trainer, "fit", checking)
    assert run(app, "--resume", "auto", "--num_epochs", 2) == 0


def test_files_that_cannot_be_written_are_reported(write_app, tmp_path, monkeypatch, caplog):
    folder = RunFolder(run_settings(load_config(write_app())))
    board = TensorBoard(folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    for name in ("add_scalar", "close"):
        monkeypatch.setattr(board._writer, name, full)
    with pytest.raises(UserError, match=r"runs: cannot be written to .*No space left.* free some space"):
        board.add_scalar("train/lr", 0.1, 1)
    board.on_end(None)
    assert "the last values for TensorBoard could not be written" in caplog.text
    (folder.path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match="cannot be written to"):
        folder.add_metrics({"step": 1})


def test_weights_that_are_not_finite_are_not_saved(write_app, folder, capsys, monkeypatch):
    """The loss is still finite when the update that follows it spoils a weight."""

    def spoil(self, trainer):
        if trainer.step == 2:
            next(trainer.model.parameters()).data.fill_(float("nan"))
        save(self, trainer)

    save = CheckpointSaver.save_within_epoch
    monkeypatch.setattr(CheckpointSaver, "save_within_epoch", spoil)
    assert run(write_app(), "--checkpoint_interval_steps", 1) == 2
    assert "is not finite" in capsys.readouterr().err
    assert read_checkpoint(folder / "last.pt")["iter"] == 1


def test_a_run_repeats_from_its_own_configuration(write_app, tmp_path):
    ends = []
    app = write_app(seed=5, lr=0.05)
    for name in ("first", "second"):
        places = ["--save_dir", tmp_path / name / "checkpoints", "--log_dir", tmp_path / name / "runs"]
        assert run(app, *places) == 0
        (app,) = (tmp_path / name / "runs").glob("*/config.yml")
        ends.append(read_checkpoint(tmp_path / name / "checkpoints" / "tiny" / "last.pt"))
    first, second = ends
    for key in STATE:
        assert same(first[key], second[key]), key
    assert first["config"]["seed"] == 5
    assert first["origin"].keys() >= {"versions", "commit", "platform", "command", "device", "processes"}
