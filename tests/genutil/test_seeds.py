"""One experiment with several seeds, as a user runs it."""

import json
import re
import signal

import pytest

import runner
from genutil.seeds import summary_of_seeds
from tests.processes import start


def run(app, *argv):
    return runner.main([f"app:{app}", *map(str, argv)])


def results(tmp_path):
    return {
        content["name"]: content
        for content in (json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/results.json"))
    }


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
    assert run(app, "--seeds", 3, 5, 7, "--workers", 0) == 0
    assert "tiny-seed3 is finished: " in caplog.text
    assert "tiny-seed5 is finished: " in caplog.text
    assert set(results(tmp_path)) == {"tiny-seed3", "tiny-seed5", "tiny-seed7"}
    assert len(list((tmp_path / "runs").iterdir())) == 3


def test_a_seed_is_what_it_would_be_alone(write_app, tmp_path):
    app = write_app(num_epochs=1)
    assert run(app, "--seeds", 4) == 0
    assert run(app, "--seed", 4, "--name", "alone") == 0
    found = results(tmp_path)
    assert found["tiny-seed4"]["CELoss"] == found["alone"]["CELoss"]


def test_checkpoints_of_the_same_seed(write_app, tmp_path):
    assert run(write_app(num_epochs=1, graph="complete"), "--seeds", 1, 2) == 0
    start = str(tmp_path / "checkpoints" / "tiny-seed{seed}" / "last.pt")
    tuned = ["--name", "tuned", "--graph", "fine_tune", "--use_graph", start]
    assert run(write_app(num_epochs=1), *tuned, "--seeds", 1, 2) == 0
    found = results(tmp_path)
    for seed in (1, 2):
        assert found[f"tuned-seed{seed}"]["config"]["use_graph"] == start.replace("{seed}", str(seed))


def test_another_experiment_is_not_finished(write_app, tmp_path):
    app = write_app(num_epochs=1)
    assert run(app, "--seeds", 1) == 0
    assert run(app, "--seeds", 1, "--num_epochs", 2) == 0  # goes on for an epoch
    assert len(list((tmp_path / "runs").glob("*/results.json"))) == 2
    assert run(app, "--seeds", 1, "--num_epochs", 2, "--lr", 0.01) == 0
    assert len(list((tmp_path / "runs").glob("*/results.json"))) == 3


def test_a_stopped_run_goes_on(write_app, tmp_path):
    app = write_app(num_epochs=300)
    process = start(app, tmp_path, "--seeds", 1, 2)
    for line in process.stderr:
        if "epoch 3, step" in line:
            break
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, told
    assert not results(tmp_path)
    assert run(app, "--seeds", 1, 2, "--num_epochs", 20) == 0
    assert {content["epochs"] for content in results(tmp_path).values()} == {20}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--seeds", 1, 1], "seeds: must be one or more different numbers"),
        (["--seeds"], "seeds: must be one or more different numbers"),
        (["--seeds", 1, "--resume", "auto"], "seeds: goes on with each of its runs by itself"),
        (["--seeds", -1], "seeds"),
        (["--seeds", 1, "--lr", -1], "lr: must be greater than 0"),
    ],
)
def test_mistakes(write_app, capsys, argv, message):
    assert run(write_app(), *argv) == 2
    assert message in capsys.readouterr().err


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
