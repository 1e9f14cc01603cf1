"""One experiment with several seeds, as a user runs it."""

import json
import os
import re
import signal
import sys

import pytest

import runner
from genutil.config.identity import differences, differences_without_seed
from genutil.runs import multi_seed
from genutil.runs.multi_seed import summary_of_seeds
from genutil.runs.wiring_record import read_record
from genutil.spread import mean_and_std, spread
from tests.helpers.processes import start, wait_for_line

in_this_process = pytest.mark.usefixtures("seeds_in_this_process")


def run(app, *argv):
    return runner.main([f"app:{app}", *map(str, argv)])


def results(tmp_path):
    return {
        content["name"]: content
        for content in (json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/results.json"))
    }


@in_this_process
def test_each_seed_is_a_run_and_finished_ones_are_left_out(write_app, tmp_path, capfd, caplog):
    caplog.set_level("INFO")
    app = write_app(num_epochs=1)
    assert run(app, "--seeds", 3, 5) == 0
    found = results(tmp_path)
    assert {name: content["seed"] for name, content in found.items()} == {"tiny-seed3": 3, "tiny-seed5": 5}
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == set(found)
    tops = [content["top1_accuracy"] for content in found.values()]
    printed = capfd.readouterr().out
    assert re.search(rf"^tiny, 2 seeds\n  top1_accuracy +{sum(tops) / 2:.2f} ± ", printed, re.MULTILINE)

    assert "is finished" not in caplog.text
    assert "tiny-seed3: seed 3 (1 of 2)\n" in caplog.text and "tiny-seed5: seed 5 (2 of 2)\n" in caplog.text
    assert run(app, "--seeds", 3, 5, 7, "--workers", 0) == 0
    assert "tiny-seed3 is finished: " in caplog.text
    assert "tiny-seed5 is finished: " in caplog.text
    assert set(results(tmp_path)) == {"tiny-seed3", "tiny-seed5", "tiny-seed7"}
    assert len(list((tmp_path / "runs").iterdir())) == 3


@in_this_process
def test_a_seed_is_what_it_would_be_alone(write_app, tmp_path):
    app = write_app(num_epochs=1)
    assert run(app, "--seeds", 4) == 0
    assert run(app, "--seed", 4, "--name", "alone") == 0
    found = results(tmp_path)
    assert found["tiny-seed4"]["CELoss"] == found["alone"]["CELoss"]


@in_this_process
def test_checkpoints_of_the_same_seed(write_app, tmp_path):
    assert run(write_app(num_epochs=1, graph="complete"), "--seeds", 1, 2) == 0
    start = str(tmp_path / "checkpoints" / "tiny-seed{seed}" / "last.pt")
    tuned = ["--name", "tuned", "--graph", "fine_tune", "--use_graph", start]
    assert run(write_app(num_epochs=1), *tuned, "--seeds", 1, 2) == 0
    found = results(tmp_path)
    for seed in (1, 2):
        assert found[f"tuned-seed{seed}"]["config"]["use_graph"] == start.replace("{seed}", str(seed))


def trained(tmp_path):
    """Of each run: rate and epochs as configured, the rate of its last line, the epochs of its lines."""
    found = []
    for path in sorted((tmp_path / "runs").glob("*/results.json"), key=lambda path: path.stat().st_mtime_ns):
        config = json.loads(path.read_text())["config"]
        lines = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
        epochs = [line["epoch"] for line in lines if line["phase"] == "train"]
        found.append((config["lr"], config["num_epochs"], lines[-1]["lr"], epochs))
    return found


@in_this_process
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--num_epochs", 1, "--lr", 0.01], "lr is 0.01, in the file 0.1"),
        (["--num_epochs", 2], "num_epochs is 2, in the file 1"),  # its schedule has ended
    ],
)
def test_another_experiment_is_trained_from_its_beginning(write_app, tmp_path, caplog, changed, message):
    """Weights of other settings must not be reported as its results."""
    caplog.set_level("INFO")
    app = write_app()
    assert run(app, "--seeds", 1, "--num_epochs", 1, "--lr", 0.1) == 0
    assert run(app, "--seeds", 1, *changed) == 0
    assert re.search(rf"tiny-seed1 starts from the beginning, since .*: .*{re.escape(message)}", caplog.text)
    _, (lr, epochs, used, reported_epochs) = trained(tmp_path)
    assert reported_epochs == list(range(epochs))
    assert used <= lr
    assert (tmp_path / "checkpoints" / "tiny-seed1.1" / "last.pt").is_file()


@in_this_process
def test_a_new_setting_gives_what_it_gives_alone(write_app, tmp_path):
    app = write_app(num_epochs=1)
    assert run(app, "--seeds", 1) == 0
    assert run(app, "--seeds", 1, "--lr", 0.01) == 0
    assert run(app, "--seed", 1, "--lr", 0.01, "--name", "alone") == 0
    found = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/results.json")]
    losses = {(content["name"], content["config"]["lr"]): content["CELoss"] for content in found}
    assert losses["tiny-seed1", 0.01] == losses["alone", 0.01] != losses["tiny-seed1", 0.1]


@pytest.mark.slow
def test_a_stopped_run_goes_on(write_app, tmp_path):
    app = write_app(num_epochs=15)
    process = start(app, tmp_path, "--seeds", 1, 2)
    wait_for_line(process, "epoch 3, step")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert not results(tmp_path)
    assert run(app, "--seeds", 1, 2) == 0
    assert {content["epochs"] for content in results(tmp_path).values()} == {15}
    firsts = [epochs[0] for *_, epochs in trained(tmp_path)]
    assert firsts[0] >= 2 and firsts[1] == 0


def test_the_run_gets_an_interrupt_that_its_parent_alone_got(write_app, tmp_path):
    process = start(write_app(num_epochs=10_000), tmp_path, "--seeds", 1, start_new_session=True)
    wait_for_line(process, "epoch 3, step")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, errors
    assert "stopped by SIGINT" in errors


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGUSR1])
def test_a_run_of_a_seed_saves_at_a_lost_connection_or_a_time_limit(write_app, tmp_path, signum):
    process = start(write_app(num_epochs=10_000), tmp_path, "--seeds", 1, 2)
    wait_for_line(process, "epoch 3, step")
    process.send_signal(signum)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signum, errors
    assert f"stopped by {signum.name}" in errors
    assert (tmp_path / "checkpoints" / "tiny-seed1" / "last.pt").is_file()
    assert not (tmp_path / "checkpoints" / "tiny-seed2").exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_forwarded_once(signum):
    """The run is in a session of its own, so that a terminal's Ctrl-C does not reach it a second time."""
    signums = []

    class Process:
        send_signal = staticmethod(signums.append)

    with multi_seed._forward_signals(Process):
        os.kill(os.getpid(), signum)
    assert signums == [signum]
    code = "import os, sys; sys.exit(os.getsid(0) != os.getpid())"
    assert multi_seed._run([sys.executable, "-c", code]) == 0
    assert multi_seed._run([sys.executable, "-c", "raise SystemExit(2)"]) == 2


@in_this_process
def test_a_finished_run_without_its_record_is_trained_anew(write_app, tmp_path, capfd):
    app = write_app()
    assert run(app, "--seeds", 1) == 0
    assert run(app, "--seeds", 1, "--record_wiring") == 0
    assert [epochs for *_, epochs in trained(tmp_path)] == [[0, 1], [0, 1]]
    (record,) = (tmp_path / "runs").glob("*/wiring")
    assert [state.numbers["step"] for state in read_record(record).states] == [0, 1, 2, 3, 6]
    capfd.readouterr()
    for more in ([], ["--record_wiring"]):  # now it is finished, recorded or not
        assert run(app, "--seeds", 1, *more) == 0
    assert len(trained(tmp_path)) == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--seeds", 1, 1], "seeds: must be one or more different numbers"),
        (["--seeds"], "seeds: must be one or more different numbers"),
        (["--seeds", 1, "--resume", "auto"], "seeds: resumes each of its runs automatically"),
        (["--seeds", -1], "seeds"),
        (["--seeds", 1, "--lr", -1], "lr: must be greater than 0"),
    ],
)
def test_mistakes(write_app, capsys, argv, message):
    assert run(write_app(), *argv) == 2
    assert message in capsys.readouterr().err


@in_this_process
def test_a_run_that_fails_ends_all(write_app, capfd, tmp_path):
    assert run(write_app(data="tests.tiny_data:BrokenData"), "--seeds", 1, 2) == 2
    assert capfd.readouterr().err.count("the last good checkpoint is kept") == 1
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["tiny-seed1"]


def test_not_under_torchrun(write_app, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert run(write_app(), "--seeds", 1) == 2
    assert "start it once for each --seed" in capsys.readouterr().err


def test_summary_of_one():
    assert summary_of_seeds("x", [{"top1_accuracy": 50.0}]) == "x, 1 seeds\n  top1_accuracy   50.00 %"
    two = [{"top1_accuracy": 50.0, "top5_accuracy": 90.0}, {"top1_accuracy": 53.0, "top5_accuracy": 90.0}]
    assert summary_of_seeds("x", two).splitlines()[1:] == [
        "  top1_accuracy   51.50 ± 2.12 %", "  top5_accuracy   90.00 ± 0.00 %"
    ]  # fmt: skip


def test_spread():
    assert mean_and_std([3.0]) == (3.0, None)
    assert mean_and_std([1.0, 3.0]) == (2.0, 2**0.5)  # of the sample: n - 1
    assert spread([1.0]) == "1.00"
    assert spread([1.0, 3.0]) == "2.00 ± 1.41"
    assert spread([1000, 3000], digits=0) == "2,000 ± 1,414"
    assert spread([1.0, 3.0], digits=1, unit="M") == "2.0M ± 1.4M"


def test_settings_that_decide():
    one = {"name": "x-seed1", "seed": 1, "lr": 0.1, "save_dir": "a", "use_graph": "v1/c-seed1/last.pt"}
    other = {**one, "name": "x-seed2", "seed": 2, "save_dir": "b", "use_graph": "v1/c-seed2/last.pt"}
    assert set(differences(one, other)) == {"seed", "use_graph"}
    assert not differences_without_seed(one, other)
    assert differences_without_seed(one, {**other, "lr": 0.2}) == {"lr": (0.1, 0.2)}
    assert set(differences_without_seed(one, {**other, "use_graph": "v7/c-seed2/last.pt"})) == {"use_graph"}
    assert set(differences_without_seed(one, {**other, "use_graph": "v1/c-seed3/last.pt"})) == {"use_graph"}
    assert differences_without_seed({**one, "topk": (1, 5)}, {**other, "topk": [1, 5], "rho": 0.5}) == {
        "rho": (None, 0.5)
    }
    nested = [{**each, "model_args": {"start": each["use_graph"], "n": 3}} for each in (one, other)]
    assert not differences_without_seed(*nested)
    assert differences_without_seed(nested[0], {**nested[1], "model_args": {"n": 3}})


@in_this_process
def test_mixed_results_and_checkpoints_are_not_those_of_a_seed(write_app, tmp_path, caplog):
    """A run of one seed that was resumed from other settings neither counts as finished nor is continued."""
    caplog.set_level("INFO")
    app = write_app(num_epochs=1, lr_scheduler="multistep")
    assert run(app, "--lr", 0.05, "--name", "other") == 0
    other = tmp_path / "checkpoints" / "other" / "last.pt"
    own = ["--num_epochs", 2, "--name", "tiny-seed1", "--seed", 1]
    assert run(app, *own, "--resume", other) == 0
    assert run(app, "--num_epochs", 2, "--seeds", 1) == 0
    assert "tiny-seed1 starts from the beginning, since the training of" in caplog.text
    starts = [epochs[0] for *_, epochs in trained(tmp_path)]
    assert starts == [0, 1, 0]


@in_this_process
def test_a_seed_whose_results_are_elsewhere_is_trained_again(write_app, tmp_path, caplog):
    caplog.set_level("INFO")
    app = write_app(num_epochs=1)
    assert run(app, "--seeds", 1, "--log_dir", tmp_path / "elsewhere") == 0
    assert run(app, "--seeds", 1) == 0
    assert "is trained to the end, but its results are not in" in caplog.text
    assert list(results(tmp_path)) == ["tiny-seed1"]
