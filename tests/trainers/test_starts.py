"""Where a run may begin, and what its results say of that."""

import json
import os

import pytest
import torch

import runner
from fig.finished_runs import group_by_experiment, read_results
from genutil.checkpoint import read_checkpoint, save_checkpoint
from genutil.checkpoint.file_names import GRAPH_FORMAT
from genutil.runs.past_runs import write_run_marker
from genutil.runs.start_record import has_setting_changes, record_in, start_record
from tests.conftest import ROOT
from tests.helpers.equality import same
from trainers.callback_base import Callback
from wirings.rules.base import RankedEdges

STATE = ("model", "optimizer", "last_epoch", "best_val", "iter", "scheduler", "scaler", "rng")


def constant(lr, steps_per_epoch):
    return lambda step: lr


def halved_at_the_end(lr, steps_per_epoch, num_epochs):
    return lambda step: lr if step < steps_per_epoch * (num_epochs - 1) else lr / 2


@pytest.fixture
def last(tmp_path):
    return tmp_path / "checkpoints" / "tiny" / "last.pt"


@pytest.fixture
def run(write_app, tmp_path):
    """Runs the tiny experiment of one epoch with a schedule of steps; gives its status and new results."""
    app = write_app(num_epochs=1, lr_scheduler="multistep")

    def run(*argv):
        before = files(tmp_path)
        status = runner.main([f"app:{app}", *map(str, argv)])
        new = {path for path in files(tmp_path) - before if path.name == "results.json"}
        return status, json.loads(new.pop().read_text()) if new else None

    return run


def files(tmp_path):
    return {path for folder in ("runs", "checkpoints") for path in (tmp_path / folder).rglob("*")}


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["--lr", 0.05], "lr: 0.1 in the file, now 0.05"),
        (["--seed", 3], "seed: 0 in the file, now 3"),
        (["--batch_size", 4, "--graph", "random"], "batch_size: 8 in the file, now 4"),
        (["--data_args", "num_images=40"], "data_args: {} in the file, now {'num_images': '40'}"),
        (["--lr", 0.05, "--evaluate"], "lr: 0.1 in the file, now 0.05"),
        (["--lr", 0.05, "--export", "x.onnx"], "lr: 0.1 in the file, now 0.05"),
    ],
)
def test_auto_is_refused_for_another_experiment(run, tmp_path, capsys, last, options, difference):
    assert run()[0] == 0
    before, bits = files(tmp_path), last.read_bytes()
    assert run(*options, "--resume", "auto") == (2, None)
    errors = capsys.readouterr().err
    assert f"resume: auto found {last}, which belongs to another experiment:\n" in errors
    assert f"  {difference}\n" in errors
    assert f"use the same settings; or name the file, --resume {last}" in errors and "--name" in errors
    assert files(tmp_path) == before and last.read_bytes() == bits


def test_auto_is_refused_where_the_settings_are_not_known(run, last, capsys):
    assert run()[0] == 0
    content = read_checkpoint(last)
    for config in (None, [1], {"lr": torch.zeros(2)}):
        save_checkpoint(last, {**content, "config": config})
        assert run("--resume", "auto") == (2, None)
        assert f"auto found {last}, which does not contain its settings" in capsys.readouterr().err


def test_places_may_change(run, tmp_path):
    assert run()[0] == 0
    places = ["--workers", 0, "--log_interval", 1, "--keep_last", 1, "--log_dir", tmp_path / "runs" / "x"]
    status, results = run("--num_epochs", 2, "--resume", "auto", *places)
    assert status == 0
    assert results["started_from"]["differences"] == {}


@pytest.mark.parametrize("schedule", ["multistep", "exp_decaying", "tests.trainers.test_starts:constant"])
def test_more_epochs_are_one_long_run_where_the_schedule_has_no_length(run, tmp_path, last, schedule):
    options = ["--lr_scheduler", schedule, "--multistep_lr_milestones", 2]
    assert run(*options)[0] == 0
    status, results = run(*options, "--num_epochs", 3, "--resume", "auto")
    assert status == 0
    assert results["started_from"] == {
        "file": str(last), "epoch": 0, "step": 3, "differences": {}, "earlier": []
    }  # fmt: skip
    assert run(*options, "--num_epochs", 3, "--name", "whole")[1]["started_from"] is None
    whole, parts = (read_checkpoint(tmp_path / "checkpoints" / n / "last.pt") for n in ("whole", "tiny"))
    for key in STATE:
        assert same(whole[key], parts[key]), key


@pytest.mark.parametrize(
    "schedule", ["cosine", "linear_decaying", "tests.trainers.test_starts:halved_at_the_end"]
)
def test_more_epochs_are_refused_where_the_schedule_counts_them(run, last, capsys, schedule):
    options = ["--lr_scheduler", schedule]
    assert run(*options)[0] == 0
    assert run(*options, "--num_epochs", 3, "--resume", "auto") == (2, None)
    errors = capsys.readouterr().err
    assert "num_epochs: 1 in the file, now 3" in errors
    status, results = run(*options, "--num_epochs", 3, "--resume", last)
    assert status == 0
    assert results["started_from"]["differences"] == {"num_epochs": [1, 3]}


class Until(RankedEdges):
    """Acts on the gradients until half of all steps."""

    def after_backward(self, step):
        if step.index * 2 < step.total:
            self.weight.grad.mul_(0.5)


class HalvedGradients(Callback):
    """Acts on the gradients until half of all steps."""

    def before_optimizer_step(self, trainer):
        if trainer.step * 2 < trainer.total_steps:
            for parameter in trainer.model.parameters():
                parameter.grad.mul_(0.5)


class CountsEpochs(Callback):
    def __init__(self, num_epochs):
        self.num_epochs = num_epochs


@pytest.mark.parametrize(
    "options",
    [
        ["--graph", "tests.trainers.test_starts:Until"],
        ["--callbacks", "tests.trainers.test_starts:HalvedGradients"],
        ["--callbacks", "tests.trainers.test_starts:CountsEpochs"],
    ],
)
def test_more_epochs_are_refused_where_each_step_may_depend_on_their_number(run, capsys, options):
    assert run(*options)[0] == 0
    assert run(*options, "--num_epochs", 3, "--resume", "auto") == (2, None)
    assert "num_epochs: 1 in the file, now 3" in capsys.readouterr().err


def test_fewer_epochs_than_were_trained_are_refused(run, capsys):
    assert run("--num_epochs", 2)[0] == 0
    assert run("--num_epochs", 1, "--resume", "auto") == (2, None)
    assert "num_epochs: 2 in the file, now 1" in capsys.readouterr().err


def test_a_named_file_of_other_settings_makes_a_mixed_run_and_it_stays_one(run, tmp_path, last, caplog):
    assert run("--lr", 0.05, "--seed", 3)[0] == 0
    status, first = run("--num_epochs", 2, "--resume", last)
    assert status == 0
    differences = {"seed": [3, 0], "lr": [0.05, 0.1]}
    assert first["started_from"]["differences"] == differences
    assert (
        f"{last} was trained with other settings (seed: 3 there, now 0; lr: 0.05 there, now 0.1)"
        in caplog.text
    )
    status, again = run("--num_epochs", 3, "--resume", "auto")
    assert status == 0
    start = first["started_from"]
    assert again["started_from"] == {
        "file": str(last), "epoch": 1, "step": 6, "differences": {},
        "earlier": [{key: start[key] for key in ("file", "epoch", "step", "differences")}],
    }  # fmt: skip
    assert has_setting_changes(again["started_from"])
    evaluated = run("--num_epochs", 3, "--resume", "auto", "--evaluate")[1]
    assert has_setting_changes(evaluated["started_from"])
    run("--num_epochs", 3, "--name", "tiny-clean")
    names = list(group_by_experiment(read_results([tmp_path / "runs"])))
    assert "tiny-clean" in names
    assert [name for name in names if "(resumed from other settings: lr=0.05, seed=3)" in name]


@pytest.mark.parametrize("key", ["use_graph", "use_init"])
def test_weights_of_a_file_that_the_run_would_move_are_refused(run, tmp_path, last, capsys, key):
    """A restart before the first checkpoint would no longer find it."""
    assert run()[0] == 0
    init, before = last.with_name("init.pt"), files(tmp_path)
    other = tmp_path / "other.pt"
    other.write_bytes(init.read_bytes())
    sources = {"use_graph": other, "use_init": other, key: init}
    options = [word for name, path in sources.items() for word in (f"--{name}", path)]
    options += ["--graph", "fine_tune"]
    assert run(*options) == (2, None)
    message = f"{key}: {init} is a file of an earlier run in {last.parent}, which this run would move; "
    assert message + "give this run another --name" in capsys.readouterr().err.replace("--use", "use")
    assert files(tmp_path) == before
    assert run(*options, "--save_checkpoints", "false")[0] == 0


def test_another_name_mixes_nothing(run, last):
    assert run("--num_epochs", 2)[0] == 0
    status, results = run("--num_epochs", 2, "--name", "b", "--resume", last.with_name("epoch_0.pt"))
    assert status == 0
    assert results["started_from"]["differences"] == {}


def test_weights_alone_are_marked(run, last, tmp_path):
    assert run()[0] == 0
    torch.save({"model": read_checkpoint(last)["model"]}, tmp_path / "alone.pt")
    status, results = run("--evaluate", "--resume", tmp_path / "alone.pt")
    assert status == 0
    assert results["started_from"] == {
        "file": str(tmp_path / "alone.pt"), "epoch": None, "step": None, "differences": None, "earlier": []
    }  # fmt: skip
    own = run("--evaluate", "--resume", last, "--batch_size", 4, "--num_epochs", 9, "--topk", 1)[1]
    assert own["started_from"]["differences"] == {}
    other = run("--evaluate", "--resume", last, "--lr", 0.05)[1]
    assert other["started_from"]["differences"] == {"lr": [0.1, 0.05]}


@pytest.mark.parametrize("named", [False, True])
def test_a_finished_run_says_so_and_writes_nothing(run, tmp_path, last, caplog, capsys, named):
    caplog.set_level("INFO")
    folder = run()[1]["folder"]
    before = files(tmp_path)
    capsys.readouterr()
    caplog.clear()
    assert run("--resume", last if named else "auto") == (0, None)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        f"tiny is finished: {last} has 1 of 1 epochs; the results are in {folder}; a larger --num_epochs "
        "continues it"
    )
    assert capsys.readouterr().out == ""
    assert files(tmp_path) == before


def test_a_named_file_with_nothing_left_to_train(run, tmp_path, last, caplog):
    caplog.set_level("INFO")
    run()
    before = files(tmp_path)
    assert run("--lr", 0.05, "--resume", last) == (0, None)
    assert f"nothing is left to train: {last} has 1 of 1 epochs; --evaluate evaluates it" in caplog.text
    assert files(tmp_path) == before


@pytest.mark.parametrize("validation", ["true", "false"])
def test_a_run_that_was_stopped_before_its_results_completes_its_folder(run, tmp_path, validation):
    _, results = run("--validation", validation)
    (path,) = (tmp_path / "runs").glob("*/results.json")
    path.unlink()
    status, again = run("--validation", validation, "--resume", "auto")
    assert status == 0
    prefix = "" if validation == "true" else "train_"
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == [path.parent.name]
    for key in (f"{prefix}CELoss", f"{prefix}top1_accuracy", "epochs", "steps", "started_from", "config"):
        assert again[key] == (results[key] if key != "config" else {**results["config"], "resume": "auto"})
    lines = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
    assert again["wall_time"] >= sum(line.get("epoch_time", 0) for line in lines)


def test_a_finished_run_whose_folder_is_not_known_writes_nothing(run, tmp_path, caplog):
    caplog.set_level("INFO")
    run()
    before = files(tmp_path)
    assert run("--resume", "auto", "--log_dir", tmp_path / "elsewhere") == (0, None)
    write_run_marker(tmp_path / "checkpoints" / "tiny", "", tmp_path / "nowhere")
    next((tmp_path / "runs").glob("*/results.json")).unlink()
    assert run("--resume", "auto") == (0, None)
    assert caplog.text.count("tiny is finished") == 2
    assert "--evaluate evaluates it" in caplog.text
    assert files(tmp_path) <= before and not (tmp_path / "elsewhere").exists()


def test_records_of_damaged_files_count_as_unknown():
    for damaged in ("x", [1], {}, {"file": 1}, {"file": "", "epoch": 0, "step": 0, "differences": {"lr": 1}}):
        assert has_setting_changes(record_in({"started_from": damaged}))
        assert has_setting_changes(start_record({"started_from": damaged}, "x", 0, 0, {}))
    tensor = {"file": torch.zeros(1), "epoch": 0, "step": 0, "differences": {}, "earlier": []}
    assert has_setting_changes(record_in({"started_from": tensor}))
    assert record_in({}) is None


def test_the_sequence_of_the_page_ends_without_mixed_runs(tmp_path, monkeypatch, capsys):
    """The first commands of docs/running.md that train or evaluate digits_dnw."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "running.md").read_text().partition("\n## ")[0]
    start = "python runner.py app:apps/quickstart/digits_dnw.yml "
    commands = [line for line in page.splitlines() if line.startswith(start) and "--print_config" not in line]
    assert len(commands) == 3 and "--resume auto" in commands[1]
    small = ["--dim", "80", "--downsample_dim", "8", "--feature_dim", "10", "--layers", "4"]
    small += ["--image_size", "16", "--batch_size", "512"]
    for command in commands:
        argv = command.removeprefix(start).split()
        assert runner.main([f"app:{ROOT / 'apps/quickstart/digits_dnw.yml'}", *argv, *small]) == 0
    results = read_results([tmp_path / "runs"], evaluations=True)
    assert len(results) == 2
    assert not any(has_setting_changes(record_in(result)) for result in results)


def test_restarts_keep_where_the_run_began(run, last, monkeypatch):
    """A start after a failure resumes from the run's own last.pt and is not a start of its own."""
    assert run("--lr", 0.05)[0] == 0
    status, mixed = run("--num_epochs", 2, "--resume", last)
    assert status == 0
    launcher = f"x-{os.uname().nodename}-{os.getppid()}"
    write_run_marker(last.parent, launcher, last.parent, has_saved=True)
    for key, value in {
        "RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    from genutil.config.command_line import parse_command_line
    from genutil.distributed.rank_info import rank_info_from_env
    from genutil.runs.resume_point import checked_resume_point, find_resume_point

    argv = ["--lr", "0.7", "--save_dir", str(last.parent.parent), "--name", "tiny", "--resume", "auto"]
    config = parse_command_line([f"app:{ROOT / 'apps/quickstart/digits_dnw.yml'}", *argv]).config
    start = find_resume_point(last.parent, config.resume, rank_info_from_env(), False, GRAPH_FORMAT)
    assert start.found_by == "restart"
    assert checked_resume_point(config, start, True).started_from == mixed["started_from"]
