"""What users do with several files: fine tuning, lottery tickets, published checkpoints."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

import runner
from genutil.checkpoint import read_checkpoint
from genutil.config import load_config
from models import build_model
from models.graphs import mobilenetv1like
from models.graphs.topk import top_mask
from tests.conftest import ROOT
from tests.helpers.engines import INSTALLED
from tests.helpers.published_files import published_content, write_published

SMALLER = ((8, 8, 1, 1), (8, 16, 2, 2), (16, 16, 2, 3))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs an experiment with folders of the test's own; gives its results, or what it said when refused."""
    monkeypatch.chdir(tmp_path)

    def run(app, *options):
        argv = [
            f"app:{ROOT / 'apps' / app}",
            "--log_dir",
            str(tmp_path / "runs"),
            *map(str, options),
            "--gpus",  # the CPU: DGL is built for it
        ]
        status = runner.main(argv)
        printed = capsys.readouterr()
        if status:
            assert status == 2
            return printed.err
        with open(printed.out.rstrip().rsplit(" ", 1)[-1] + "/results.json") as file:
            return json.load(file)

    return run


def wirings(path):
    model = read_checkpoint(path)["model"]
    return {name: value for name, value in model.items() if name.endswith("graph.mask")}, model


def test_complete_then_fine_tuned_and_lottery_ticket(run, tmp_path, monkeypatch):
    """The three commands of medium scale, on few images with a smaller network."""
    monkeypatch.setattr(mobilenetv1like, "STAGES", SMALLER)
    toy = ["--data", "tests.tiny_data:TinyData", "--num_epochs", 1, "--batch_size", 8]
    toy += ["--save_dir", tmp_path / "saved"]
    run("medium_scale/mobilenetv1_complete_graph.yml", *toy)
    made = tmp_path / "saved" / "mobilenetv1_complete_graph"
    use_graph = ["--use_graph", made / "last.pt"]
    tuned = run("medium_scale/mobilenetv1_ft_x225.yml", *toy, *use_graph)
    ticket = run(
        "medium_scale/mobilenetv1_lottery_one_shot_x225.yml", *toy, *use_graph, "--use_init", made / "init.pt"
    )
    trained, first = read_checkpoint(made / "last.pt")["model"], read_checkpoint(made / "init.pt")["model"]
    folders = [tmp_path / "saved" / f"mobilenetv1_{name}" for name in ("ft_x225", "lottery_one_shot_x225")]
    starts = [wirings(folder / "init.pt") for folder in folders]
    for (masks, weights), source in zip(starts, (trained, first), strict=True):
        assert len(masks) == len(SMALLER)
        for name, mask in masks.items():
            weight = trained[name.replace("mask", "weight")]
            assert torch.equal(mask.bool(), top_mask(weight, int(mask.sum())))
        for name, value in source.items():
            assert torch.equal(weights[name], value), name
    model = build_model(load_config(ROOT / "apps/medium_scale/mobilenetv1_ft_x225.yml"))
    assert [int(mask.sum()) for mask in starts[0][0].values()] == [
        layer.rule.num_edges for layer in model.wired_layers()
    ]
    for folder, (masks, _) in zip(folders, starts, strict=True):
        for name, mask in wirings(folder / "last.pt")[0].items():
            assert torch.equal(mask, masks[name])
    assert tuned["edges"] == ticket["edges"] == sum(int(mask.sum()) for mask in starts[0][0].values())

    evaluated = run(
        "medium_scale/mobilenetv1_ft_x225.yml", *toy[:2], "--resume", folders[0] / "best.pt", "--evaluate"
    )
    assert evaluated["top1_accuracy"] == tuned["best_val"]


def test_files_of_a_flow_that_do_not_fit(run, tmp_path, monkeypatch):
    monkeypatch.setattr(mobilenetv1like, "STAGES", SMALLER)
    toy = ["--data", "tests.tiny_data:FewImages", "--num_epochs", 1, "--save_dir", tmp_path / "saved"]
    ft = "medium_scale/mobilenetv1_ft_x225.yml"
    assert "use_graph: saved/complete_final.pt: there is no such file" in run(ft, *toy)
    run("small_scale/static_dnw.yml", *toy)
    other = tmp_path / "saved" / "static_dnw" / "last.pt"
    said = run(ft, *toy, "--use_graph", other)
    assert f"use_graph: {other}: does not fit this network" in said
    run("medium_scale/mobilenetv1_complete_graph.yml", *toy)
    good = tmp_path / "saved" / "mobilenetv1_complete_graph" / "last.pt"
    assert f"use_init: {other}: does not fit" in run(ft, *toy, "--use_graph", good, "--use_init", other)
    assert "use_graph" in run("medium_scale/mobilenetv1_dnw_x225.yml", *toy, "--graph", "fine_tune")
    assert not (tmp_path / "saved" / "mobilenetv1_ft_x225").exists()


def test_resuming_a_fine_tuning_needs_no_other_file(run, tmp_path, monkeypatch):
    monkeypatch.setattr(mobilenetv1like, "STAGES", SMALLER)
    toy = ["--data", "tests.tiny_data:FewImages", "--save_dir", tmp_path / "saved"]
    run("medium_scale/mobilenetv1_complete_graph.yml", *toy, "--num_epochs", 1)
    graph = tmp_path / "saved" / "mobilenetv1_complete_graph" / "last.pt"
    ft = "medium_scale/mobilenetv1_ft_x225.yml"
    run(ft, *toy, "--num_epochs", 1, "--use_graph", graph)
    graph.unlink()
    last = tmp_path / "saved" / "mobilenetv1_ft_x225" / "last.pt"
    assert run(ft, *toy, "--num_epochs", 2, "--resume", last)["epochs"] == 2


@pytest.fixture
def image_folder(tmp_path):
    """Three classes of noise in the layout of ImageNet."""
    generator = np.random.default_rng(0)
    for name in ("n01", "n02", "n03"):
        place = tmp_path / "data" / "imagenet" / "val" / name
        place.mkdir(parents=True)
        for number in range(4):
            pixels = generator.integers(0, 256, (70, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.jpeg")
    return tmp_path / "data"


LARGE = "large_scale/mobilenetv1_dnw_x225.yml"


def published_file(path, app, numpy_names="numpy.core", **keys):
    """A network that has been trained for a step, as the published code would have saved it."""
    torch.manual_seed(3)
    config = load_config(ROOT / "apps" / app, keys)
    model = build_model(config)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9, weight_decay=config.weight_decay)
    size = min(config.image_size, 64)
    for _ in range(3):
        logits = model(torch.randn(4, 3, size, size))
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    model.linear.weight.data *= 30  # so that losses and predictions differ between images
    write_published(path, published_content(model, optimizer, 4, 40), numpy_names)
    return model


def test_published_checkpoint_evaluated_with_every_engine(run, tmp_path, image_folder):
    model = published_file(tmp_path / "dnw_x225.pt", LARGE, output_size=3, topk=[1, 2])
    common = ["--output_size", 3, "--topk", 1, 2, "--image_size", 96, "--data-dir", image_folder]
    common += ["--resume", "dnw_x225.pt", "--evaluate"]
    plain = run(LARGE, *common, "--batch_size", 8)
    assert plain["images"] == 12
    assert 1000 < plain["live_nodes"] < 4960
    # batches of 8, of single images, and of 5 with a shorter one at the end
    found = {
        "csr": run(LARGE, *common, "--fast_eval", "--engine", "csr", "--test_batch_size", 1),
        "dense": run(LARGE, *common, "--fast_eval", "--engine", "dense", "--test_batch_size", 5),
    }
    if "dgl" in INSTALLED:
        found["dgl"] = run(LARGE, *common, "--fast_eval", "--use_dgl", "--batch_size", 8)
    for engine, results in found.items():
        assert results["engine"] == engine
        assert results["CELoss"] == pytest.approx(plain["CELoss"], rel=1e-5)
        assert results["top1_accuracy"] == plain["top1_accuracy"]
        assert results["top2_accuracy"] == plain["top2_accuracy"]
        assert results["live_nodes"] == plain["live_nodes"]
    assert plain["edges"] == sum(layer.rule.num_edges for layer in model.wired_layers())


@pytest.mark.parametrize("numpy_names", ["numpy.core", "numpy._core"])
def test_training_goes_on_from_a_published_checkpoint(run, tmp_path, monkeypatch, caplog, numpy_names):
    monkeypatch.setattr(mobilenetv1like, "STAGES", SMALLER)
    app = "medium_scale/mobilenetv1_dnw_x225.yml"
    published_file(tmp_path / "published.pt", app, numpy_names)
    caplog.set_level(logging.INFO)
    results = run(
        app, "--data", "tests.tiny_data:FewImages", "--resume", "published.pt", "--num_epochs", 6,
        "--save_dir", tmp_path / "saved",
    )  # fmt: skip
    assert "resumed from published.pt: epoch 6, step 5" in caplog.text
    assert (results["epochs"], results["steps"]) == (6, 6)
    assert results["best_val"] >= 12.5


def test_weights_alone_evaluate(run, tmp_path, image_folder, monkeypatch):
    monkeypatch.setattr(mobilenetv1like, "STAGES", SMALLER)
    model = published_file(tmp_path / "whole.pt", LARGE)
    write_published(
        tmp_path / "best.pt", {"model": {f"module.{k}": v for k, v in model.state_dict().items()}}
    )
    common = ["--data-dir", image_folder, "--evaluate", "--test_batch_size", 12]
    whole = run(LARGE, *common, "--resume", "whole.pt")
    alone = run(LARGE, *common, "--resume", "best.pt")
    assert alone["CELoss"] == whole["CELoss"]


def test_evaluation_of_a_missing_folder_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(mobilenetv1like, "STAGES", SMALLER)
    published_file(tmp_path / "x.pt", LARGE)
    said = run(LARGE, "--data-dir", tmp_path / "nowhere", "--resume", "x.pt", "--evaluate")
    assert "nowhere/imagenet: there is no such folder" in said
    assert not (tmp_path / "runs").exists()


def test_a_random_wiring_is_taken_over_with_its_mask_or_not_at_all(run, tmp_path, monkeypatch):
    monkeypatch.setattr(mobilenetv1like, "STAGES", SMALLER)
    toy = ["--data", "tests.tiny_data:FewImages", "--num_epochs", 1, "--save_dir", tmp_path / "saved"]
    app = "medium_scale/mobilenetv1_random_graph_x225.yml"
    run("medium_scale/mobilenetv1_dnw_x225.yml", *toy)
    learned = tmp_path / "saved" / "mobilenetv1_dnw_x225" / "last.pt"
    assert "misses layers.0.graph.mask" in run(app, *toy, "--use_graph", learned)
    run(app, *toy, "--seed", 5, "--name", "first")
    first = tmp_path / "saved" / "first"
    run(app, *toy, "--use_graph", first / "last.pt", "--use_init", first / "init.pt", "--name", "second")
    masks, weights = wirings(tmp_path / "saved" / "second" / "init.pt")
    for name, mask in wirings(first / "last.pt")[0].items():
        assert torch.equal(mask, masks[name])
    for name, weight in wirings(first / "init.pt")[1].items():
        assert torch.equal(weight, weights[name])


def test_use_dgl_has_no_effect_without_a_graph(run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(mobilenetv1like, "STAGES", SMALLER)
    toy = ["--data", "tests.tiny_data:FewImages", "--save_dir", tmp_path / "saved", "--topk", 1]
    run("medium_scale/mobilenetv1_x25.yml", *toy, "--num_epochs", 1)
    last = tmp_path / "saved" / "mobilenetv1_x25" / "last.pt"
    evaluation = ["--evaluate", "--resume", last, "--fast_eval"]
    results = run("medium_scale/mobilenetv1_x25.yml", *toy, *evaluation)
    assert "no effect" not in caplog.text
    results = run("medium_scale/mobilenetv1_x25.yml", *toy, *evaluation, "--use_dgl")
    assert "no effect in this experiment: use_dgl" in caplog.text
    assert results["engine"] == "dense"  # there is no wiring to run


def test_the_learning_rate_follows_epochs_when_the_batches_change(run, tmp_path, caplog):
    toy = ["--data", "tests.tiny_data:TinyData", "--save_dir", tmp_path / "saved", "--image_size", 16]
    toy += ["--multistep_lr_milestones", 2, 100]
    app = "small_scale/static_dnw.yml"
    run(app, *toy, "--batch_size", 8, "--num_epochs", 2)
    last = tmp_path / "saved" / "static_dnw" / "last.pt"
    results = run(app, *toy, "--batch_size", 2, "--num_epochs", 3, "--resume", last)
    assert results["steps"] == 3 * 11
    assert "an epoch has 11 steps now; the step counter is set to 22" in caplog.text
    (metrics,) = tmp_path.glob("runs/*num_epochs=3*/metrics.jsonl")
    assert json.loads(metrics.read_text().splitlines()[0])["lr"] == pytest.approx(0.01)
