"""The loop as a user meets it: runs of the command on tiny data, resumed, stopped, killed, diverged."""

import json
import logging
import re
import signal
import time

import pytest
import torch

import runner
from genutil.checkpoint import load_weights, read_checkpoint, save_checkpoint
from genutil.config import load_config
from models import build_model
from tests.helpers.equality import same
from tests.helpers.exported_files import save_safetensors
from tests.helpers.processes import ForkedCommand, wait_for_line


def run(path, *argv):
    return runner.main([f"app:{path}", *argv])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints" / "tiny"


def lines(tmp_path):
    (path,) = (tmp_path / "runs").glob("*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_a_run_leaves(write_app, tmp_path, folder, capsys):
    assert run(write_app(), "--num_epochs", "11") == 0
    assert {file.name for file in folder.glob("*.pt")} == {
        "init.pt", "epoch_0.pt", "epoch_10.pt", "last.pt", "best.pt"
    }  # fmt: skip
    metrics = lines(tmp_path)
    assert [(line["epoch"], line["phase"]) for line in metrics] == [
        (epoch, phase) for epoch in range(11) for phase in ("train", "val")
    ]
    assert metrics[-1]["step"] == 33
    assert metrics[-2]["lr"] == pytest.approx(0, abs=1e-12)
    (run_folder,) = (tmp_path / "runs").iterdir()
    assert run_folder.name.startswith("tiny+num_epochs=11-2")
    results = json.loads((run_folder / "results.json").read_text())
    assert results["top1_accuracy"] == metrics[-1]["top1_accuracy"]
    assert results["best_val"] == max(line["top1_accuracy"] for line in metrics if line["phase"] == "val")
    assert (results["edges"], results["epochs"], results["steps"], results["seed"]) == (640, 11, 33, 0)
    assert torch.__version__.startswith(results["versions"]["torch"])
    assert results["config"]["num_epochs"] == 11
    assert load_config(run_folder / "config.yml").num_epochs == 11
    assert load_config(run_folder / "config.yml").name == "tiny"
    printed = capsys.readouterr().out
    assert "top1_accuracy" in printed
    assert str(run_folder) in printed


def test_tensorboard_tags(write_app, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(write_app(), "--num_epochs", "1")
    (run_folder,) = (tmp_path / "runs").iterdir()
    events = EventAccumulator(str(run_folder))
    events.Reload()
    tags = events.Tags()
    assert {
        "train/CELoss", "train/top1_accuracy", "train/top5_accuracy", "train/epoch_time", "train/lr",
        "train/images_per_second", "val/CELoss", "val/top1_accuracy", "val/best_val", "flops/flops",
        "wiring/churn_0",
    } <= set(tags["scalars"])  # fmt: skip
    assert tags["histograms"] == ["weights/in_use_0"]
    assert sum(events.Histograms("weights/in_use_0")[0].histogram_value.bucket) == 640
    (churn,) = events.Scalars("wiring/churn_0")
    assert 0 < churn.value < 100
    hparams = events.SummaryMetadata("_hparams_/session_start_info")
    assert hparams.plugin_data.plugin_name == "hparams"
    assert b"prune_rate" in hparams.plugin_data.content
    assert tags["images"] == ["adjacency/non_zero_0"]
    picture = events.Images("adjacency/non_zero_0")[0]
    assert (picture.width, picture.height) == (80, 80)


def test_skip_profiling_leaves_out_the_macs(write_app, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(write_app(), "--num_epochs", "1", "--skip_profiling")
    events = EventAccumulator(str(next((tmp_path / "runs").iterdir())))
    events.Reload()
    assert "flops/flops" not in events.Tags()["scalars"]


@pytest.mark.parametrize(
    "changes", [{}, {"graph": "random"}, {"amp": "bf16"}, {"amp": "fp16"}, {"deterministic": True}], ids=str
)
def test_two_epochs_are_one_and_one_resumed(write_app, tmp_path, changes):
    path = write_app(nestorov=True, **changes)
    assert run(path, "--name", "whole") == 0
    checkpoints = tmp_path / "checkpoints"
    assert run(path, "--name", "parts", "--resume", str(checkpoints / "whole" / "epoch_0.pt")) == 0
    whole, parts = (read_checkpoint(checkpoints / name / "last.pt") for name in ("whole", "parts"))
    for key in ("model", "optimizer", "last_epoch", "best_val", "iter", "scheduler", "scaler", "rng"):
        assert same(whole[key], parts[key]), key


def test_evaluations_of_an_equation_are_reported(write_app, tmp_path, capsys):
    model = "models.graphs.neuralgraph:ContinuousTimeNeuralGraph"
    path = write_app(model=model, setting="continuous", ode_solver="rk4", ode_steps=3, num_epochs=1)
    assert run(path) == 0
    assert re.search(r"^  ODE evaluations +12$", capsys.readouterr().out, re.MULTILINE)
    train, _ = lines(tmp_path)
    assert train["ode_evaluations"] == 12
    (results,) = (tmp_path / "runs").glob("*/results.json")
    assert json.loads(results.read_text())["ode_evaluations"] == 12


@pytest.mark.parametrize(
    "signum",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, marks=pytest.mark.slow),
    ],
)
def test_a_signal_stops_after_the_step_and_resuming_is_exact(write_app, tmp_path, folder, signum):
    path = write_app(num_epochs=8, log_interval=4, data_args={"num_images": 200}, momentum=0.5)
    process = ForkedCommand([f"app:{path}"])
    wait_for_line(process, "epoch 2, step 28")  # within the second epoch of 25 steps
    process.send_signal(signum)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert "resume with --resume auto" in errors
    assert f"stopped by {signum.name}" in errors
    assert "Traceback" not in errors
    stopped = read_checkpoint(folder / "last.pt")
    assert 28 <= stopped["iter"] < 200
    assert run(path, "--resume", "auto") == 0
    resumed = read_checkpoint(folder / "last.pt")
    assert run(path, "--name", "undisturbed") == 0
    whole = read_checkpoint(tmp_path / "checkpoints" / "undisturbed" / "last.pt")
    for key in ("model", "optimizer", "iter", "best_val"):
        assert same(resumed[key], whole[key]), key
    stopped_at = stopped["last_epoch"] + 1
    by_run = {}
    for file in (tmp_path / "runs").glob("*/metrics.jsonl"):
        for text in file.read_text().splitlines():
            line = json.loads(text)
            if line["phase"] == "train" and line["epoch"] == stopped_at:
                by_run[file.parent.name] = line["CELoss"]
    assert len(set(by_run.values())) == 1  # the interrupted epoch's mean is exact as well
    assert len(by_run) == 2


@pytest.mark.parametrize("delays", [(0.31,), pytest.param((0.0, 0.13, 0.31), marks=pytest.mark.slow)])
def test_kill_leaves_a_loadable_checkpoint_or_none(write_app, folder, delays):
    path = write_app(num_epochs=2000, log_interval=1, data_args={"num_images": 16})
    for delay in delays:
        process = ForkedCommand([f"app:{path}", "--resume", "auto"])
        wait_for_line(process, "epoch 3, step" if len(delays) == 1 else "epoch ")
        time.sleep(delay)
        process.kill()
        process.communicate(timeout=60)
        last = folder / "last.pt"
        if last.exists():
            model = build_model(load_config(path))
            assert load_weights(last, model).epoch >= 0
    assert (folder / "last.pt").exists()


def test_divergence_stops_with_advice_and_keeps_the_last_good_checkpoint(write_app, folder, capsys):
    assert run(write_app()) == 0
    good = (folder / "last.pt").read_bytes()
    broken = ["--data", "tests.tiny_data:BrokenData", "--num_epochs", "4"]
    assert run(write_app(), *broken, "--resume", str(folder / "last.pt")) == 2
    errors = capsys.readouterr().err
    assert "try a smaller lr" in errors
    assert (folder / "last.pt").read_bytes() == good


@pytest.mark.parametrize("graph", ["dnw", "complete"])
def test_divergence_of_the_loss(write_app, folder, capsys, graph):
    path = write_app(graph=graph, prune_rate=0.0)
    assert run(path, "--data", "tests.tiny_data:BrokenData", "--log_interval", "1") == 2
    assert "nan" in capsys.readouterr().err.lower()
    assert not (folder / "last.pt").exists()


def test_earlier_checkpoints_are_kept_aside(write_app, tmp_path, folder, caplog):
    path = write_app(lr_scheduler="multistep")
    run(path)
    first = (folder / "best.pt").read_bytes()
    run(path)
    assert (tmp_path / "checkpoints" / "tiny.1" / "best.pt").read_bytes() == first
    assert "were moved to" in caplog.text
    run(path, "--resume", "auto", "--num_epochs", "3")
    assert not (tmp_path / "checkpoints" / "tiny.2").exists()


def test_two_runs_cannot_write_to_one_folder(write_app, tmp_path, folder, capsys):
    from genutil.runs.checkpoint_folder import CheckpointFolder

    held = CheckpointFolder(folder)
    assert run(write_app()) == 2
    assert (
        "another run is writing its checkpoints here; give this one another name" in capsys.readouterr().err
    )
    held.close()
    assert run(write_app()) == 0


def test_resume_auto_without_a_checkpoint(write_app, capsys):
    assert run(write_app(), "--resume", "auto", "--num_epochs", "1") == 0
    assert run(write_app("other.yml"), "--resume", "auto", "--evaluate") == 2
    assert "train this experiment first" in capsys.readouterr().err


def test_evaluation_gives_the_last_validation(write_app, tmp_path, folder):
    path = write_app()
    run(path)
    last = lines(tmp_path)[-1]
    assert run(path, "--resume", str(folder / "last.pt"), "--evaluate") == 0
    (file,) = (tmp_path / "runs").glob("*evaluate=True*/results.json")
    results = json.loads(file.read_text())
    assert results["CELoss"] == pytest.approx(last["CELoss"])
    assert results["top1_accuracy"] == last["top1_accuracy"]


def test_resuming_tells_what_changed_and_refuses_other_batches(write_app, tmp_path, folder, caplog, capsys):
    path = write_app()
    run(path)
    last = str(folder / "last.pt")
    run(path, "--resume", last, "--num_epochs", "3", "--lr", "0.2")
    assert "lr: 0.1 there, now 0.2" in caplog.text
    state = read_checkpoint(folder / "last.pt")
    state["epoch_progress"] = {"batch": 1, "meter": None}
    save_checkpoint(folder / "last.pt", state)
    assert run(path, "--resume", last, "--num_epochs", "9", "--batch_size", "4") == 2
    assert "was saved within an epoch, and batch_size changed since" in capsys.readouterr().err


def test_weights_alone_cannot_be_resumed_but_evaluated(write_app, tmp_path, folder, capsys):
    path = write_app()
    run(path)
    alone = tmp_path / "alone.pt"
    torch.save({"model": read_checkpoint(folder / "best.pt")["model"]}, alone)
    assert run(path, "--resume", str(alone), "--evaluate") == 0
    before = sorted(folder.iterdir())
    assert run(path, "--resume", str(alone)) == 2
    error = capsys.readouterr().err
    assert f"{alone}: has weights but no training state of this program" in error
    assert f"start a new training at epoch 0 with its weights: --use_graph {alone} in place of" in error
    assert sorted(folder.iterdir()) == before  # a run that is refused moves nothing
    assert len(list((tmp_path / "runs").iterdir())) == 2


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_a_training_starts_with_the_weights_of_another_program(write_app, tmp_path, folder, caplog, name):
    caplog.set_level(logging.INFO)
    path = write_app()
    run(path, "--num_epochs", "1")
    weights = read_checkpoint(folder / "last.pt")["model"]
    compiled = {f"_orig_mod.{key}": value for key, value in weights.items()}
    torch.save(compiled, tmp_path / "x.pt")
    save_safetensors(compiled, tmp_path / "x.safetensors")
    caplog.clear()
    assert run(path, "--num_epochs", "1", "--use_graph", str(tmp_path / name), "--name", "second") == 0
    first = read_checkpoint(tmp_path / "checkpoints" / "second" / "init.pt")
    assert first["last_epoch"] == -1
    assert all(torch.equal(value, first["model"][key]) for key, value in weights.items())
    assert caplog.text.count(f"{tmp_path / name}: removed the prefix '_orig_mod.' from all names") == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"config": 3},
        {"config": {"seed": torch.ones(2)}},
        {"epoch_progress": [1]},
        {"epoch_progress": {"batch": -1, "meter": None}},
        {"epoch_progress": {"batch": 99, "meter": None}},
        {"last_epoch": -3},
        {"last_epoch": float("inf")},
        {"iter": float("nan")},
        {"iter": -1},
        {"rng": {}},
        {"rng": 0},
        {"optimizer": None},
        {"optimizer": {"param_groups": [3], "state": 1}},
        {"optimizer_names": 5},
    ],
)
def test_an_odd_training_state_is_refused_by_its_file(write_app, folder, capsys, changes):
    path = write_app(num_epochs=1)
    run(path)
    save_checkpoint(folder / "odd.pt", {**read_checkpoint(folder / "last.pt"), **changes})
    assert run(path, "--resume", str(folder / "odd.pt"), "--num_epochs", "2") == 2
    (message,) = capsys.readouterr().err.strip().splitlines()
    assert "odd.pt: its " in message


def test_a_wrong_checkpoint_is_refused_before_data_is_loaded(write_app, capsys):
    path = write_app(data="tests.no_such_module:Data")
    assert run(path, "--resume", "gone.pt") == 2
    assert "gone.pt: there is no such file" in capsys.readouterr().err


def test_unwritable_folders(write_app, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(write_app(), "--save_dir", str(tmp_path / "file")) == 2
    assert "cannot be used for checkpoints" in capsys.readouterr().err
    assert run(write_app(), "--log_dir", str(tmp_path / "file")) == 2
    assert "cannot be written to" in capsys.readouterr().err
