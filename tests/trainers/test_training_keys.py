"""Keys of a training that every network takes, and what they change in its files."""

import json
import logging

import pytest
import torch

import runner
from genutil.checkpoint import read_checkpoint
from trainers.trainer import Trainer
from wirings.checksum import digest

STATE = ("model", "optimizer", "last_epoch", "best_val", "iter", "rng")


@pytest.fixture
def run(write_app, tmp_path):
    """Runs the tiny experiment; gives its results."""
    app = write_app()

    def run(*argv):
        assert runner.main([f"app:{app}", *map(str, argv)]) == 0
        path = max(tmp_path.glob("runs/*/results.json"), key=lambda path: path.stat().st_mtime_ns)
        return {**json.loads(path.read_text()), "metrics": metrics(path.with_name("metrics.jsonl"))}

    return run


def metrics(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def trainer_of(monkeypatch, run, *argv):
    fit, trainers = Trainer.fit, []

    def noting(trainer):
        trainers.append(trainer)
        return fit(trainer)

    monkeypatch.setattr(Trainer, "fit", noting)
    run(*argv)
    return trainers.pop()


def test_a_training_without_validation_on_few_batches_without_checkpoints(run, tmp_path):
    results = run("--no-validation", "--max_batches", 2, "--no-save_checkpoints")
    assert [(line["phase"], line["step"]) for line in results["metrics"]] == [("train", 2), ("train", 4)]
    assert "train_top1_accuracy" in results
    assert not {"best_val", "top1_accuracy"} & results.keys()
    assert not (tmp_path / "checkpoints").exists()


def test_validations_after_every_third_epoch_and_the_last(run, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    plain = run("--num_epochs", 4, "--name", "plain")
    results = run("--num_epochs", 4, "--validate_every", 3)
    lines = [line for line in results["metrics"] if line["phase"] == "val"]
    assert [line["epoch"] for line in lines] == [2, 3]
    assert results["top1_accuracy"] == plain["top1_accuracy"]
    assert results["best_val"] == lines[-1]["best_val"] == max(line["top1_accuracy"] for line in lines)
    epochs = [line for line in caplog.text.splitlines() if "of 4: train loss" in line][-4:]
    assert ["val loss" in line for line in epochs] == [False, False, True, True]
    folder = tmp_path / "checkpoints" / results["name"]
    assert torch.load(folder / "best.pt", weights_only=True)["last_epoch"] in (2, 3)


def test_rates_of_a_training_with_warm_up_from_a_later_epoch(run):
    results = run("--num_epochs", 6, "--warmup", 4, "--start_epoch", 1, "--lr_scheduler", "epoch_linear")
    rates = [line["lr"] for line in results["metrics"] if line["phase"] == "train"]
    assert rates == pytest.approx([0.05, 0.075, 0.1, 0.1, 0.05])
    assert (results["epochs"], results["metrics"][0]["epoch"]) == (6, 1)


def test_keys_of_the_objective_and_the_optimizer(monkeypatch, run):
    argv = ["--label_smoothing", 0.1, "--mixup", 0.2, "--seed", 3, "--amp", "fp16", "--loss_scale", 8]
    trainer = trainer_of(monkeypatch, run, *argv, "--no-norm_weight_decay")
    criterion = trainer.criterion
    assert (criterion.label_smoothing, criterion.mixup, criterion.seed) == (0.1, 0.2, 3)
    assert trainer.precision.state_dict()["scale"] == 8
    norms, others = trainer.optimizer.param_groups
    sizes = [sum(weight.numel() for weight in group["params"]) for group in (norms, others)]
    assert norms["weight_decay"] == 0
    assert 0 < sizes[0] < sizes[1]


def test_channels_last_changes_rounding_alone(run):
    plain, last = run("--name", "plain"), run("--name", "last", "--channels_last")
    for one, other in zip(plain["metrics"], last["metrics"], strict=True):
        assert other["CELoss"] == pytest.approx(one["CELoss"], rel=1e-4)


def test_synthetic_images_need_no_data_and_an_evaluation_of_them_no_checkpoint(run):
    random = ["--data", "data.synthetic:SyntheticImages", "--max_batches", 3, "--topk", 1]
    assert run(*random)["steps"] == 6
    timed = run(*random, "--evaluate")
    assert timed["images"] == 24
    batch = timed["batch_ms"]
    assert 0 < batch["min"] <= batch["median"] <= batch["max"]
    assert timed["latency_ms"] == pytest.approx(batch["median"] / 8)


def test_checkpoints_in_the_published_form_of_resnets(run, tmp_path):
    """The folder, names and keys are others; the state is the same."""
    run("--name", "graph")
    folder = tmp_path / "here"
    form = ["--checkpoint_dir", folder, "--checkpoint_format", "resnet", "--name", "resnet"]
    run(*form, "--checkpoint_interval", "none")
    files = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert files == {"checkpoint.pth.tar", "model_best.pth.tar"}
    content = torch.load(folder / "checkpoint.pth.tar", weights_only=True)
    assert {"state_dict", "epoch", "arch", "best_prec1", "optimizer"} <= content.keys()
    one = read_checkpoint(tmp_path / "checkpoints" / "graph" / "last.pt")
    other = read_checkpoint(folder / "checkpoint.pth.tar")
    for key in STATE:
        assert digest(one[key]) == digest(other[key]), key
    assert run(*form, "--evaluate", "--resume", "auto")["top1_accuracy"] == pytest.approx(
        run("--name", "graph", "--evaluate", "--resume", "auto")["top1_accuracy"]
    )


@pytest.mark.usefixtures("seeds_in_this_process")
def test_seeds_in_folders_of_their_own(write_app, tmp_path, capsys):
    form = ["--checkpoint_dir", tmp_path / "c{seed}", "--checkpoint_format", "resnet", "--num_epochs", 1]
    argv = [f"app:{write_app()}", *map(str, form), "--seeds", "1", "2"]
    assert runner.main(argv) == 0
    assert all((tmp_path / f"c{seed}" / "checkpoint.pth.tar").is_file() for seed in (1, 2))
    assert "tiny, 2 seeds" in capsys.readouterr().out


def test_results_list_what_each_layer_costs(run):
    results = run()
    assert sum(layer["edges"] for layer in results["layers"]) == results["edges"]
    (graph,) = [layer for layer in results["layers"] if layer["potential"]]
    assert 0 <= graph["new_edges"] <= graph["edges"]


def test_a_data_backend_without_effect_is_named(run, caplog):
    run("--data_backend", "dali-cpu", "--num_epochs", 1)
    assert "no effect in this experiment: data_backend" in caplog.text
