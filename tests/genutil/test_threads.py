"""How many threads a run takes, by its keys, its size and the environment."""

import json

import pytest
import torch
from torch import nn

import runner
from genutil.config import load_config
from genutil.config.identity import differences
from genutil.threads import SMALL_STEP, choose_threads, threads_in_use, work_of_step
from models import build_model
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    """As on a machine with two cores."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("threads", "work", "environment", "chosen"),
    [
        ("auto", SMALL_STEP - 1, {}, 1),
        ("auto", SMALL_STEP, {}, None),
        ("auto", 1, {"OMP_NUM_THREADS": "4"}, None),
        ("auto", 1, {"OMP_NUM_THREADS": ""}, 1),
        (3, 1, {}, 3),
        (1, SMALL_STEP, {"OMP_NUM_THREADS": "4"}, 1),
    ],
)
def test_what_is_chosen(threads, work, environment, chosen):
    assert choose_threads(threads, work, environment) == chosen


def test_work_is_weights_times_images_times_pixels():
    network = nn.Linear(10, 4)
    assert work_of_step(network, 32, 16) == 44 * 32 * 256
    network.weight.data.zero_()  # a wiring in use is not part of it
    assert work_of_step(network, 32, 16) == 44 * 32 * 256


def test_threads_are_put_back():
    with threads_in_use(1) as one:
        assert one == torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(RuntimeError), threads_in_use(1):
        raise RuntimeError
    assert torch.get_num_threads() == 2
    with threads_in_use(None) as kept:
        assert kept == 2


def results(tmp_path):
    return {
        content["name"]: content
        for content in (json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/results.json"))
    }


def test_a_run_records_its_threads_and_repeats(write_app, tmp_path, monkeypatch):
    app = write_app(num_epochs=1)
    for name, threads in (("first", "auto"), ("again", "auto"), ("two", 2), ("one", 1)):
        assert runner.main([f"app:{app}", "--name", name, "--threads", str(threads)]) == 0
        assert torch.get_num_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert runner.main([f"app:{app}", "--name", "environment"]) == 0
    found = results(tmp_path)
    threads = {name: content["threads"] for name, content in found.items()}
    assert threads == {"first": 1, "again": 1, "two": 2, "one": 1, "environment": 2}
    assert found["first"]["CELoss"] == found["again"]["CELoss"] == found["one"]["CELoss"]
    last = tmp_path / "checkpoints" / "one" / "last.pt"
    evaluate = [f"app:{app}", "--evaluate", "--resume", str(last)]
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert runner.main([*evaluate, "--name", "plain"]) == 0
    assert runner.main([*evaluate, "--name", "fast", "--fast_eval"]) == 0
    assert [results(tmp_path)[name]["threads"] for name in ("plain", "fast")] == [1, 2]


@pytest.mark.parametrize(
    ("app", "small"),
    [
        ("quickstart/wiring_demo.yml", True),
        ("quickstart/digits_dnw.yml", False),
        ("small_scale/static_dnw.yml", False),
        ("medium_scale/mobilenetv1_dnw_x225.yml", False),
    ],
)
def test_experiments_that_were_measured(app, small):
    config = load_config(ROOT / "apps" / app)
    work = work_of_step(build_model(config), config.batch_size, config.image_size)
    assert (choose_threads("auto", work, {}) == 1) == small


@pytest.mark.parametrize("threads", [0, -1, "many", 5000, 1.5])
def test_mistakes(write_app, capsys, threads):
    assert runner.main([f"app:{write_app()}", "--threads", str(threads)]) == 2
    assert "threads: must be" in capsys.readouterr().err


def test_threads_do_not_decide_which_experiment_it_is():
    assert not differences({"threads": 1}, {"threads": "auto"})
    assert not differences({}, {"threads": 2})
