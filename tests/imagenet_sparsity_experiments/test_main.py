"""The command as a user meets it, on a toy ImageNet."""

import argparse
import re
import shutil

import pytest
import torch

from genutil.checkpoint import read_checkpoint, save_checkpoint
from genutil.checkpoint.file_names import to_resnet_keys
from genutil.exceptions import UserError
from imagenet_sparsity_experiments import main
from imagenet_sparsity_experiments.options import parse_options
from tests.imagenet_sparsity_experiments.toy import SMALL, build, make_images, raport, run
from trainers.optimizers import optimizer_names, sgd, without_decay_of_norms
from wirings.checksum import digest

STATE = ("model", "optimizer", "last_epoch", "best_val", "iter", "scheduler", "rng", "optimizer_names")


@pytest.fixture
def images(tmp_path, narrow_resnet18):
    make_images(tmp_path / "imagenet")
    return tmp_path / "imagenet"


@pytest.fixture
def space(tmp_path):
    return tmp_path / "work"


def test_what_a_training_leaves(images, space, capsys, caplog):
    caplog.set_level("INFO")
    options = ["-c", "allsparse20", "--epochs", 2, "--lr", "0.01", "-p", 2, "--raport-file", "report.json"]
    assert run(images, space, *options, "--final-weights", "end.pth.tar") == 0
    files = {file.name for file in space.iterdir() if file.is_file()} - {".lock", ".run"}
    assert files == {"checkpoint.pth.tar", "model_best.pth.tar", "end.pth.tar", "report.json"}
    report = raport(space, "report.json")
    assert (report["epochs"], report["steps"], report["kept"], report["weights"]) == (2, 6, *counts(0.8))
    assert [(line["epoch"], line["phase"]) for line in report["metrics"]] == [
        (0, "train"), (0, "val"), (1, "train"), (1, "val")
    ]  # fmt: skip
    assert all(0 < line["top1_accuracy"] <= 100 for line in report["metrics"] if line["phase"] == "train")
    assert report["config"]["lr"] == 0.01
    assert report["best_val"] == max(line.get("best_val", 0) for line in report["metrics"])
    (logs,) = (space / "logs").iterdir()
    assert {"config.yml", "metrics.jsonl", "results.json"} <= {file.name for file in logs.iterdir()}
    content = torch.load(space / "checkpoint.pth.tar", weights_only=True)
    assert {"state_dict", "epoch", "arch", "best_prec1", "optimizer"} <= content.keys()
    assert (content["epoch"], content["arch"]) == (2, "resnet18")
    final = torch.load(space / "end.pth.tar", weights_only=True)
    assert all(torch.equal(value, content["state_dict"][name]) for name, value in final.items())
    printed = capsys.readouterr()
    assert re.search(r"kept weights +\d", printed.out)
    assert caplog.text.count("| layer4.1.conv2 ") == 2  # before and after
    assert "newly in use" in caplog.text
    assert "epoch 1, step 2: loss" in caplog.text


def counts(prune_rate):
    """(kept, all) weights of the toy's network."""
    sizes = [
        parameter.numel() for parameter in build("dense", num_classes=3).parameters() if parameter.dim() == 4
    ]
    return sum(size - int(prune_rate * size) for size in sizes), sum(sizes)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["-c", "allsparse10", "--mixup", "0.2", "--nesterov"],
        ["-c", "tdsparse30", "--optimizer-batch-size", "8"],
    ],
)
def test_resuming_is_exact(images, tmp_path, options):
    common = [*options, "--epochs", 3, "--lr", "0.01", "--warmup", 1, "--lr-schedule", "cosine"]
    assert run(images, tmp_path / "whole", *common) == 0
    part = tmp_path / "parts"
    assert run(images, part, *common, "--gather-checkpoints") == 0
    first = part / "checkpoint-0.pth.tar"
    assert run(images, tmp_path / "again", *common, "--resume", first) == 0
    whole, again = (read_checkpoint(tmp_path / name / "checkpoint.pth.tar") for name in ("whole", "again"))
    for key in STATE:
        assert digest(again[key]) == digest(whole[key]), key
    lines = [line["CELoss"] for line in raport(tmp_path / "whole")["metrics"]]
    assert [line["CELoss"] for line in raport(tmp_path / "again")["metrics"]] == lines[2:]


def test_gather_and_resume_auto(images, space, caplog):
    caplog.set_level("INFO")
    assert run(images, space, "--epochs", 2, "--lr", "0.01", "--gather-checkpoints") == 0
    assert {"checkpoint-0.pth.tar", "checkpoint-1.pth.tar"} <= {file.name for file in space.iterdir()}
    last = space / "checkpoint.pth.tar"
    assert run(images, space, "--epochs", 3, "--lr", "0.02", "--resume", last) == 0
    assert caplog.text.count("now 0.02") == 1  # one warning of the changed setting
    assert f"{last} was trained with other settings (lr: 0.01 there, now 0.02)" in caplog.text
    assert raport(space)["started_from"]["differences"] == {"lr": [0.01, 0.02]}
    assert read_checkpoint(space / "checkpoint.pth.tar")["last_epoch"] == 2
    assert not (space.parent / "work.1").exists()
    assert run(images, space, "--epochs", 1) == 0
    assert (space.parent / "work.1" / "checkpoint-1.pth.tar").exists()
    assert (space.parent / "work.1" / "experiment_raport.json").exists()


def test_auto_is_refused_for_other_options_and_for_a_finished_training(images, space, capsys, caplog):
    caplog.set_level("INFO")
    assert run(images, space, "--epochs", 1, "--lr", "0.01", "--lr-schedule", "cosine") == 0
    before = {path: path.stat().st_mtime_ns for path in space.rglob("*")}
    cosine = ["--lr-schedule", "cosine", "--resume", "auto"]
    assert run(images, space, "--epochs", 1, "--lr", "0.02", *cosine) == 2
    errors = capsys.readouterr().err
    assert (
        "checkpoint.pth.tar, which belongs to another experiment:\n  lr: 0.01 in the file, now 0.02\n"
        in errors
    )
    assert "or give this experiment another --workspace" in errors
    assert run(images, space, "--epochs", 2, "--lr", "0.01", *cosine) == 2
    errors = capsys.readouterr().err
    assert "--epochs (num_epochs): 1 in the file, now 2" in errors
    assert "(training depends on --epochs (num_epochs) from the first step" in errors
    assert run(images, space, "--epochs", 1, "--lr", "0.01", *cosine) == 0
    assert "resnet18_classic is finished: " in caplog.text
    assert {path: path.stat().st_mtime_ns for path in space.rglob("*")} == before


def published(path, name="allsparse20"):
    """As the published program writes: prefixed names, batch norms found by `bn`, no more keys."""
    torch.manual_seed(3)
    network = build(name, num_classes=3)
    parameters = dict(network.named_parameters())
    order = sorted(parameters, key=lambda name: "bn" not in name)
    numbers = range(len(order))
    norms = sum("bn" in name for name in order)
    torch.save(
        {
            "epoch": 1, "arch": "resnet18", "best_prec1": torch.tensor(40.0),
            "state_dict": {f"module.{name}": value for name, value in network.state_dict().items()},
            "optimizer": {
                "state": {
                    number: {"momentum_buffer": torch.full_like(parameters[name], 1000 * number)}
                    for number, name in enumerate(order)
                },
                "param_groups": [
                    {"params": list(numbers[:norms]), "weight_decay": 0, "lr": 1},
                    {"params": list(numbers[norms:]), "weight_decay": 1e-4, "lr": 1},
                ],
            },
        },
        path,
        _use_new_zipfile_serialization=False,
    )  # fmt: skip
    return network, order


def test_training_goes_on_from_a_published_checkpoint(images, space, tmp_path, caplog):
    network, order = published(tmp_path / "theirs.pth.tar")
    options = ["-c", "allsparse20", "--epochs", 2, "--lr", "1e-13", "--momentum", "0.5"]
    assert run(images, space, *options, "--resume", tmp_path / "theirs.pth.tar") == 0
    content = read_checkpoint(space / "checkpoint.pth.tar")
    assert (content["last_epoch"], content["iter"]) == (1, 6)
    momenta = dict(zip(content["optimizer_names"], content["optimizer"]["state"].values(), strict=True))
    for name in ("layer2.0.downsample.1.weight", "conv1.weight", "bn1.bias"):
        kept = 1000 * order.index(name) * 0.5**3  # three steps, each halves what was there
        assert (momenta[name]["momentum_buffer"] - kept).abs().median() < 20, name  # gradients
    assert "step counter" not in caplog.text  # published files do not have one
    weights = network.state_dict()
    torch.testing.assert_close(content["model"]["fc.weight"], weights["fc.weight"], rtol=0, atol=1e-6)
    mine = build("allsparse20", num_classes=3)
    assert content["optimizer_names"] == optimizer_names(
        sgd(without_decay_of_norms(mine), 0.1, 0.9, 0, nestorov=False), mine
    )


def test_evaluation(images, space, tmp_path, caplog):
    assert run(images, space, "-c", "allsparse20", "--epochs", 1, "--lr", "0.01") == 0
    trained = raport(space)
    for flag, file in (("--resume", "checkpoint.pth.tar"), ("--pretrained-weights", "model.pth.tar")):
        where = tmp_path / file.partition(".")[0]
        assert run(images, where, "-c", "allsparse20", "--evaluate", flag, space / file) == 0
        found = raport(where)
        for key in ("CELoss", "top1_accuracy"):
            assert found[key] == pytest.approx(trained[key], abs=1e-4)
        assert found["images"] == 6
        assert found["latency_ms"] > 0
        caplog.clear()
        other = ["-c", "allsparse90", "--evaluate", flag, space / "model_best.pth.tar"]
        assert run(images, tmp_path / "other", *other) == 0
        changed = "--model-config (prune_rate): 0.8 there, now 0.1"
        assert f"was trained with other settings ({changed}); the results record this" in caplog.text
        assert raport(tmp_path / "other")["CELoss"] != trained["CELoss"]


def test_an_evaluation_leaves_the_report_of_the_training(images, space):
    assert run(images, space, "--epochs", 2, "--lr", "0.01") == 0
    before = raport(space)
    for number in (1, 2):
        assert run(images, space, "--evaluate", "--resume", "auto") == 0
        assert raport(space)["metrics"] == []
        assert len(list(space.glob("experiment_raport*.json"))) == number + 1
    assert raport(space, "experiment_raport.1.json") == before


@pytest.mark.parametrize("failing", ["write_final_weights", "write_report"])
def test_files_that_could_not_be_written_are_written_by_a_resume(images, space, monkeypatch, failing):
    def full_disk(*_):
        raise UserError("no space left")

    options = ["--epochs", 1, "--lr", "0.01"]
    with monkeypatch.context() as patch:
        patch.setattr(main, failing, full_disk)
        assert run(images, space, *options) == 2
    assert run(images, space, *options, "--resume", "auto") == 0
    weights = read_checkpoint(space / "checkpoint.pth.tar")["model"]
    assert digest(read_checkpoint(space / "model.pth.tar")["model"]) == digest(weights)
    assert [line["phase"] for line in raport(space)["metrics"]] == ["train", "val"]
    assert (raport(space)["epochs"], len(list((space / "logs").iterdir()))) == (1, 1)


def test_corrupt_images_are_counted(images, space):
    (images / "train" / "class0" / "0.jpg").write_text("no image")
    (images / "val" / "class1" / "1.jpg").write_text("no image")
    assert run(images, space, "--epochs", 1, "--lr", "0.01", "--skip-corrupt", "--batch-size", 6) == 0
    assert raport(space)["corrupt_images"] == 2
    assert run(images, space, "--evaluate", "--resume", "auto", "--skip-corrupt") == 0
    assert (raport(space)["corrupt_images"], raport(space)["images"]) == (1, 5)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_training_by_the_compiler(images, space):
    """Validation in batches of one image, and of others, is compiled too; what is counted is the same."""
    (images / "val" / "class0" / "0.jpg").unlink()
    common = ["-c", "allsparse20", "--epochs", 1, "--lr", "0.001"]
    assert run(images, space / "plain", *common) == 0
    assert run(images, space / "compiled", *common, "--compile") == 0
    plain, compiled = (raport(space / name) for name in ("plain", "compiled"))
    assert compiled["kept"] == plain["kept"]
    assert [(layer["kept"], layer["macs"]) for layer in compiled["layers"]] == [
        (layer["kept"], layer["macs"]) for layer in plain["layers"]
    ]
    assert compiled["metrics"][0]["CELoss"] == pytest.approx(plain["metrics"][0]["CELoss"], rel=1e-2)


def test_weights_to_begin_with_and_going_on_by_one_command(images, space, tmp_path, caplog, capsys):
    caplog.set_level("INFO")
    assert run(images, tmp_path / "first", "-c", "dense", "--epochs", 1, "--lr", "0.01") == 0
    weights = tmp_path / "first" / "model.pth.tar"
    common = ["-c", "allsparse50", "--pretrained-weights", weights, "--resume", "auto", "--lr", "0.01"]
    assert run(images, space, *common, "--epochs", 1) == 0
    assert f"loaded the weights of {weights}" in caplog.text
    caplog.clear()
    assert run(images, space, *common, "--epochs", 2) == 0
    assert "loaded the weights" not in caplog.text
    last, final = space / "checkpoint.pth.tar", space / "model.pth.tar"
    assert run(images, space, "--pretrained-weights", final, "-c", "allsparse50", "--epochs", 1) == 2
    assert f"--pretrained-weights: {final} is a file of an earlier run" in capsys.readouterr().err
    assert final.exists()
    assert f"--pretrained-weights is not read: wiring and weights are those of {last}" in caplog.text
    assert f"resumed from {last}" in caplog.text


def earlier_version(path, **changes):
    """Rewrite a checkpoint as earlier versions of main.py wrote it: with options in place of keys."""
    content = read_checkpoint(path)
    values = parse_options(["imagenet", *SMALL, "--epochs", "1", "--lr", "0.01"]).values
    save_checkpoint(path, to_resnet_keys({**content, "config": {**values, **changes}}))


def test_checkpoints_of_earlier_versions_are_resumed(images, space, capsys, caplog):
    options = ["--epochs", 1, "--lr", "0.01"]
    assert run(images, space, *options) == 0
    earlier_version(space / "checkpoint.pth.tar", lr=0.5)
    assert run(images, space, *options, "--resume", "auto") == 2
    assert "another experiment:\n  lr: 0.5 in the file, now 0.01\nuse the same" in capsys.readouterr().err
    earlier_version(space / "checkpoint.pth.tar")
    assert run(images, space, "--epochs", 2, "--lr", "0.01", "--resume", "auto") == 0
    assert raport(space)["started_from"]["differences"] == {}
    earlier_version(space / "checkpoint.pth.tar", batch_size="many")
    assert run(images, space, "--epochs", 3, "--lr", "0.01", "--resume", "auto") == 2
    assert "which belongs to another experiment" in capsys.readouterr().err
    assert "settings of an earlier version of this command cannot be converted" in caplog.text


def test_files_of_timm_give_weights_but_are_not_resumed(images, space, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    network, file = build("dense", num_classes=3), tmp_path / "timm.pth.tar"
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    content = {
        "epoch": 5, "arch": "resnet18", "version": 2, "metric": 71.5, "state_dict": network.state_dict(),
        "optimizer": optimizer.state_dict(), "args": argparse.Namespace(lr=0.1, model="resnet18"),
    }  # fmt: skip
    torch.save(content, file)
    assert run(images, space, "--epochs", 1, "--resume", file) == 2
    errors = capsys.readouterr().err
    assert f"{file}: has weights but no training state of this program" in errors
    assert f"--pretrained-weights {file} in place of --resume {file}" in errors
    assert not space.exists()
    assert run(images, space, "--epochs", 1, "--lr", "1e-13", "--pretrained-weights", file) == 0
    assert f"loaded the weights of {file}" in caplog.text
    weights = read_checkpoint(space / "checkpoint.pth.tar")["model"]
    torch.testing.assert_close(weights["fc.weight"], network.state_dict()["fc.weight"], rtol=0, atol=1e-6)


def test_going_on_within_an_epoch_of_other_length_is_refused(images, space, capsys):
    assert run(images, space, "--epochs", 2, "--lr", "0.01") == 0
    content = torch.load(space / "checkpoint.pth.tar", weights_only=True)
    content["epoch_progress"]["batch"] = 1
    for key in ("checksum", "format"):
        del content[key]
    torch.save(content, space / "within.pth.tar")
    assert run(images, space, "--epochs", 3, "--resume", space / "within.pth.tar", "--prof", 2) == 2
    assert "the number of batches (3, now 2) changed since; resume with" in capsys.readouterr().err


def test_training_alone_on_few_batches_without_checkpoints(images, space):
    shutil.rmtree(images / "val")
    options = ["--epochs", 2, "--training-only", "--prof", 2, "--no-checkpoints", "--bn-weight-decay"]
    assert run(images, space, *options) == 0
    report = raport(space)
    assert [line["phase"] for line in report["metrics"]] == ["train", "train"]
    assert report["steps"] == 4
    assert "train_top1_accuracy" in report
    assert not {"best_val", "top1_accuracy"} & report.keys()
    assert not list(space.glob("*.tar"))


def test_first_epoch_of_a_training_without_checkpoint(images, space):
    options = ["--epochs", 33, "--start-epoch", 30, "--prof", 1, "--no-checkpoints"]
    assert run(images, space, *options) == 0
    rates = [(line["epoch"], line["lr"]) for line in raport(space)["metrics"] if line["phase"] == "train"]
    assert rates == [(epoch, pytest.approx(0.01)) for epoch in (30, 31, 32)]


def test_inference_and_training_on_random_images(space, capsys):
    small = ["--arch", "resnet18", "--image-size", "32", "--batch-size", "4", "--workspace", str(space)]
    assert main.main([*small, "--benchmark-inference", "--prof", "3", "-c", "allsparse10"]) == 0
    report = raport(space)
    assert report["images"] == 12
    batch = report["batch_ms"]
    assert 0 < batch["min"] <= batch["median"] <= batch["max"]
    assert report["images_per_second"] == pytest.approx(4000 / batch["median"])
    assert re.search(r"latency +\d+\.\d+ ms per image", capsys.readouterr().out)
    synthetic = ["--data-backend", "synthetic", "--epochs", "1", "--prof", "2", "--no-checkpoints"]
    assert main.main([*small, *synthetic]) == 0
    assert raport(space)["steps"] == 2


def test_mistakes_are_reported_without_a_traceback(images, space, capsys):
    assert run(images, space, "--data-backend", "dali-gpu") == 2
    assert "there is none; choose dali-cpu" in capsys.readouterr().err
    assert run(images, space, "--resume", "nowhere.pth.tar") == 2
    assert "nowhere.pth.tar: there is no such file" in capsys.readouterr().err
    assert run(images, space, "--num-classes", "2") == 2
    assert "has 3 classes, but the network has 2" in capsys.readouterr().err
    assert run(images, space, "--optimizer-batch-size", "4", "--batch-size", "8") == 2
    assert "--optimizer-batch-size: must be a multiple of 8, " in capsys.readouterr().err
    assert run(images.parent / "elsewhere", space) == 2
    assert "name another folder of data" in capsys.readouterr().err
    assert not space.exists()
