"""Runs by several processes, as users see them: numbers, files, messages, failures, restarts."""

import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import runner
from genutil.checkpoint import read_checkpoint
from tests.conftest import ROOT
from tests.helpers.equality import STATE, same
from tests.helpers.processes import (
    IS_TORCH_2_6,
    end_of,
    folders,
    run_together,
    start,
    wait_for_line,
    workers_of,
)
from wirings.rules import RULES, find_rule, options_of

FROZEN_NORMS = "tests.own_parts:GraphWithFrozenNorms"


def metrics_of(folder):
    (path,) = folder.glob("runs/*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def results_of(folder):
    (path,) = folder.glob("runs/*/results.json")
    return json.loads(path.read_text())


def last_of(folder):
    return read_checkpoint(folder / "checkpoints" / "tiny" / "last.pt")


def run_alone(app, path, *argv):
    assert runner.main([f"app:{app}", *map(str, [*folders(path), *argv])]) == 0
    return path


def test_two_processes_give_the_numbers_of_one(write_app, tmp_path):
    """Over 50 steps, with last batches of odd sizes; each file is written once."""
    keys = {"num_epochs": 5, "log_interval": 1, "test_batch_size": 4}
    app = write_app(model=FROZEN_NORMS, data_args={"num_images": 75}, **keys)
    alone = metrics_of(run_alone(app, tmp_path / "alone"))
    argv = [f"app:{app}", *folders(tmp_path / "two"), "--processes", 2]
    first, second = run_together(2, argv, tmp_path)
    assert (first.status, second.status) == (0, 0), first.err
    assert (second.out, second.err) == ("", "")
    assert "2 processes on CPUs" in first.err
    several = metrics_of(tmp_path / "two")
    assert several[-1]["step"] == 50
    for one, other in zip(alone, several, strict=True):
        assert other["CELoss"] == pytest.approx(one["CELoss"], rel=1e-5)
        assert other["top1_accuracy"] == one["top1_accuracy"]
    results = results_of(tmp_path / "two")
    assert (results["processes"], results["restarts"]) == (2, 0)
    assert results["effective_edges"] == results_of(tmp_path / "alone")["effective_edges"]


@pytest.mark.parametrize("graph", ["random", "td"])
def test_processes_share_masks_that_are_drawn(write_app, tmp_path, graph):
    keys = {"graph": graph, "log_interval": 1, **({"rho": 0.5} if graph == "td" else {})}
    app = write_app(model=FROZEN_NORMS, **keys)
    alone = metrics_of(run_alone(app, tmp_path / "alone"))
    argv = [f"app:{app}", *folders(tmp_path / "two")]
    assert [ended.status for ended in run_together(2, argv, tmp_path)] == [0, 0]
    for one, other in zip(alone, metrics_of(tmp_path / "two"), strict=True):
        assert other["CELoss"] == pytest.approx(one["CELoss"], rel=1e-5)


NETWORKS = {
    "discrete": {"model": "models.graphs.neuralgraph:DiscreteTimeNeuralGraph", "setting": "discrete_time"},
    "continuous": {"model": "models.graphs.neuralgraph:ContinuousTimeNeuralGraph", "setting": "continuous"},
    "mobilenet graph": {"model": "models.graphs.mobilenetv1like:MobileNetV1Like", "small": True},
    "dense": {"model": "models.basic.mobilenetv1cifar:MobileNetV1CIFAR", "width_mult": 0.1, "image_size": 32},
    "16 bits": {"amp": "bf16", "accumulate": 2},
}


@pytest.mark.parametrize(
    "network",
    [pytest.param(name, marks=() if name == "discrete" else pytest.mark.slow) for name in NETWORKS],
)
def test_every_network_is_the_same_in_all_processes(write_app, tmp_path, network):
    """Each checkpoint compares them to the bit."""
    app = write_app(num_epochs=1, topk=[1], **NETWORKS[network])
    for ended in run_together(2, [f"app:{app}", *folders(tmp_path)], tmp_path):
        assert ended.status == 0, ended.err
    assert last_of(tmp_path)["iter"] == 3


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(rule, marks=() if rule in ("rigl", "chts") else pytest.mark.slow)
        for rule in RULES
        if rule not in ("dnw", "random", "complete", "fine_tune", "td", "reg_td")
    ],
)
def test_every_rule_changes_alike_in_all_processes(write_app, tmp_path, rule):
    """Checkpoints compare weights, wirings and random numbers of all processes, to the bit."""
    own = {"graph_args": {"update_interval": 2}} if "update_interval" in options_of(rule) else {}
    app = write_app(graph=rule, data_args={"num_images": 40}, **own)
    ended = run_together(2, [f"app:{app}", *folders(tmp_path)], tmp_path)
    assert [one.status for one in ended] == [0, 0], ended[0].err
    results = results_of(tmp_path)
    assert results["edges"] == 640 or not find_rule(rule).has_exact_count or rule == "srigl"
    assert results["training_macs"] > 0


def test_sync_bn_needs_gpus(write_app, tmp_path, caplog):
    """One message of several processes on CPUs; a single process has nothing to synchronize."""
    app = write_app(num_epochs=1)
    ended = run_together(2, [f"app:{app}", *folders(tmp_path), "--sync_bn"], tmp_path)
    assert [one.status for one in ended] == [2, 2]
    errors = "".join(one.err for one in ended)
    assert errors.count("sync_bn: needs GPUs") == 1
    assert "leave sync_bn out, or train on GPUs (--gpus 0 1)" in errors
    run_alone(app, tmp_path, "--sync_bn")
    assert "no effect in this experiment: sync_bn" in caplog.text


def test_three_processes_count_every_image_once(write_app, tmp_path):
    """10 images in batches of 4: shares of 2, 1, 1 and, of the last two, 1, 1, 0."""
    app = write_app(num_epochs=1)
    run_alone(app, tmp_path / "alone")
    last = tmp_path / "alone" / "checkpoints" / "tiny" / "last.pt"
    evaluate = ["--evaluate", "--resume", last, "--test_batch_size", 4]
    run_alone(app, tmp_path / "one", *evaluate)
    ended = run_together(3, [f"app:{app}", *folders(tmp_path / "three"), *evaluate], tmp_path)
    assert [one.status for one in ended] == [0, 0, 0], ended[0].err
    one, three = results_of(tmp_path / "one"), results_of(tmp_path / "three")
    assert three["images"] == one["images"] == 10
    assert three["CELoss"] == pytest.approx(one["CELoss"], rel=1e-6)
    for key in ("top1_accuracy", "top5_accuracy"):
        assert three[key] == one[key]


def test_training_goes_on_with_another_number_of_processes(write_app, tmp_path):
    """From a checkpoint within an epoch, by two processes, to the end by one: the epoch's mean counts all."""
    app = write_app(model=FROZEN_NORMS, data_args={"num_images": 40}, num_epochs=1, log_interval=1)
    alone = metrics_of(run_alone(app, tmp_path / "alone"))
    argv = [f"app:{app}", *folders(tmp_path / "two"), "--checkpoint_interval_steps", 3]
    assert [one.status for one in run_together(2, [*argv, "--optimizer", "tests.stops:stops"], tmp_path)] == [
        2,
        2,
    ]
    stopped = last_of(tmp_path / "two")
    assert (stopped["iter"], stopped["last_epoch"], stopped["epoch_progress"]["batch"]) == (3, -1, 3)
    resume = tmp_path / "two" / "checkpoints" / "tiny" / "last.pt"
    finished = metrics_of(run_alone(app, tmp_path / "end", "--resume", resume))
    assert finished[0]["CELoss"] == pytest.approx(alone[0]["CELoss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_a_lost_process_costs_nothing_but_time(write_app, tmp_path, size):
    """Killed in epoch 2 of 4 and restarted within it, the processes end with the bits of a run that
    nothing happened to, and the run's folder has each step once."""
    app = write_app(
        data_args={"num_images": 150}, num_epochs=4, log_interval=5, batch_size=6, checkpoint_interval_steps=7
    )
    process = start(app, tmp_path / "killed", "--processes", size, "--max_restarts", 2)
    wait_for_line(process, "epoch 2, step 35")
    os.kill(workers_of(process)[1], signal.SIGKILL)
    out, errors = end_of(process, 120)
    assert process.returncode == 0, errors
    # Of three, the last may wait for the first, and is counted as lost too.
    assert re.search(rf"process(es)? 1(, 2)? (is|are) gone or hung, of {size} \(0 to {size - 1}\)", errors)
    assert "all processes are restarted" in errors
    assert "restarted after a failure; 1 restarts left" in errors
    assert "Traceback" not in errors
    assert "top1_accuracy" in out
    ended = run_together(size, [f"app:{app}", *folders(tmp_path / "whole")], tmp_path)
    assert [one.status for one in ended] == [0] * size
    killed, whole = last_of(tmp_path / "killed"), last_of(tmp_path / "whole")
    for key in STATE:
        assert same(killed[key], whole[key]), key
    metrics = [
        [(m["step"], m["phase"], m["CELoss"]) for m in metrics_of(tmp_path / n)] for n in ("killed", "whole")
    ]
    assert metrics[0] == metrics[1]
    assert results_of(tmp_path / "killed")["restarts"] == 1


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_after_the_same_step(write_app, tmp_path):
    app = write_app(data_args={"num_images": 1200}, log_interval=5)
    process = start(app, tmp_path / "stopped", "--processes", 2)
    wait_for_line(process, "epoch 1, step 30")
    os.kill(workers_of(process)[1], signal.SIGTERM)
    _, errors = end_of(process, 60)
    assert process.returncode == 128 + signal.SIGTERM
    assert errors.count("resume with --resume auto") == errors.count("stopped by SIGTERM") == 1
    assert "Traceback" not in errors
    assert 30 <= last_of(tmp_path / "stopped")["iter"] < 300
    for name, more in (("stopped", ["--resume", "auto"]), ("whole", [])):
        ended = run_together(2, [f"app:{app}", *folders(tmp_path / name), *more], tmp_path)
        assert [one.status for one in ended] == [0, 0], ended[0].err
    for key in STATE:
        assert same(last_of(tmp_path / "stopped")[key], last_of(tmp_path / "whole")[key]), key


@pytest.mark.parametrize(
    "signum",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_the_launcher_reaches_all(write_app, tmp_path, signum, monkeypatch):
    temporary = tmp_path / "t"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))  # torch makes it; else in TMPDIR
    process = start(write_app(num_epochs=1000), tmp_path, "--processes", 2, "--max_restarts", 1)
    wait_for_line(process, "epoch 2, step")
    process.send_signal(signum)
    _, errors = end_of(process, 60)
    assert process.returncode == 128 + signum
    assert errors.count("resume with --resume auto") == 1
    assert errors.count(f"stopped by {signum.name}") == 1
    assert "Traceback" not in errors and "restarted" not in errors
    assert last_of(tmp_path)["iter"] >= 3
    assert IS_TORCH_2_6 or list(temporary.iterdir()) == []  # the launcher of torch 2.6 leaves a folder


@pytest.mark.slow
def test_an_evaluation_by_several_processes_can_be_stopped(write_app, tmp_path):
    app = write_app(num_epochs=1)
    run_alone(app, tmp_path)
    last = tmp_path / "checkpoints" / "tiny" / "last.pt"
    argv = ["--evaluate", "--resume", last, "--processes", 2, "--data", "tests.tiny_data:EndlessData"]
    process = start(app, tmp_path, *argv)
    wait_for_line(process, "2 processes on CPUs")
    time.sleep(2)  # it is evaluating, or will be
    process.send_signal(signal.SIGINT)
    _, errors = end_of(process, 60)
    assert process.returncode == 128 + signal.SIGINT
    assert errors.count("stopped by SIGINT") == 1


@pytest.mark.slow
def test_two_machines(write_app, tmp_path):
    """Two torchrun agents, each in a folder of its own: the first alone writes, and the numbers are those of
    two processes on one machine."""
    app = write_app(log_interval=1)
    port = 29000 + os.getpid() % 2000
    agents = []
    for node in range(2):
        torchrun = [
            "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", node, "--nproc-per-node", "1",
            "--master-addr", "127.0.0.1", "--master-port", port, ROOT / "runner.py",
        ]  # fmt: skip
        agents.append(start(app, tmp_path / f"machine{node}", launcher=torchrun))
    for agent in agents:
        _, errors = end_of(agent, 120)
        assert agent.returncode == 0, errors
    assert not (tmp_path / "machine1").exists()
    assert [one.status for one in run_together(2, [f"app:{app}", *folders(tmp_path / "one")], tmp_path)] == [
        0,
        0,
    ]
    for key in STATE:
        assert same(last_of(tmp_path / "machine0")[key], last_of(tmp_path / "one")[key]), key


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--nonsense", 3], "nonsense: unknown key"),  # found by each process, before they meet
        pytest.param(["--layers", 6], "layers must be at least 2", marks=pytest.mark.slow),  # and after
    ],
)
def test_a_mistake_under_torchrun_is_reported_once_and_first(write_app, tmp_path, argv, message):
    """torchrun then adds its own report, in which the message and the status are shown, and ends with 1."""
    torchrun = [
        "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1",
        "--master-port", 29000 + os.getpid() % 2000, ROOT / "runner.py",
    ]  # fmt: skip
    process = start(write_app(), tmp_path, *argv, launcher=torchrun)
    _, errors = end_of(process, 120)
    ours, _, theirs = errors.partition("torch/distributed/")
    assert ours.count(message) == 1
    assert "Traceback" not in ours and "failed (exitcode" not in ours
    _, _, cause = theirs.partition("Root Cause")
    assert message in cause
    assert re.search(r"exitcode +: 2 ", cause)


@pytest.fixture
def photographs(tmp_path):
    """A tiny folder of images whose last one is damaged."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 2)):
        for label in range(2):
            folder = tmp_path / "imagenet" / part / f"n{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (24, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "imagenet" / "train" / "n1" / "3.png").write_bytes(b"no picture")
    return tmp_path


def test_an_image_that_one_process_cannot_read_is_named_once(write_app, tmp_path, photographs):
    app = write_app(data="data.imagenet:ImageNet", data_args=None, data_dir=str(photographs), workers=0)
    argv = [f"app:{app}", *folders(tmp_path), "--batch_size", 2, "--num_epochs", 1]
    ended = run_together(2, argv, tmp_path)
    assert [one.status for one in ended] == [2, 2]
    errors = "".join(one.err for one in ended)
    assert errors.count("n1/3.png: cannot be read; replace it") == 1
    assert "Traceback" not in errors


@pytest.mark.slow
def test_an_image_that_cannot_be_read_is_no_reason_to_try_again(write_app, tmp_path, photographs):
    """By the launcher's own processes: the mistake is not a reason to try again."""
    app = write_app(data="data.imagenet:ImageNet", data_args=None, data_dir=str(photographs), workers=1)
    process = start(app, tmp_path, "--processes", 2, "--max_restarts", 3)
    _, errors = end_of(process, 120)
    assert process.returncode == 2, errors
    assert errors.count("n1/3.png: cannot be read; replace it") == 1
    assert "Traceback" not in errors and "restarted" not in errors


def test_images_left_out_are_counted_over_all_processes(write_app, tmp_path, photographs):
    app = write_app(data="data.imagenet:ImageNet", data_args=None, data_dir=str(photographs), workers=0)
    argv = [f"app:{app}", *folders(tmp_path), "--skip_corrupt", "--batch_size", 2, "--num_epochs", 1]
    ended = run_together(2, argv, tmp_path)
    assert [one.status for one in ended] == [0, 0], ended[0].err + ended[1].err
    assert results_of(tmp_path)["corrupt_images"] == 1
    assert "".join(one.err for one in ended).count("cannot be read and is left out") == 1


@pytest.mark.slow
def test_a_hung_process_is_named_when_the_time_is_out(write_app, tmp_path):
    process = start(write_app(num_epochs=1000), tmp_path, "--processes", 2, "--timeout", 3)
    wait_for_line(process, "epoch 2, step")
    hung = workers_of(process)[1]
    os.kill(hung, signal.SIGSTOP)
    _, errors = end_of(process, 120)
    assert process.returncode == 1
    assert re.search(r"process 1 is gone or hung.*Timed out waiting 3000ms", errors)
    assert last_of(tmp_path)["iter"] >= 3


@pytest.mark.slow
def test_processes_without_a_launcher_save_and_stop(write_app, tmp_path):
    process = start(write_app(num_epochs=1000), tmp_path, "--processes", 2)
    wait_for_line(process, "epoch 2, step")
    workers = workers_of(process)
    process.kill()
    deadline = time.monotonic() + 60
    while (
        any(Path(f"/proc/{worker}").exists() for worker in workers.values()) and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers.values())
    process.communicate()
    assert last_of(tmp_path)["epoch_progress"]["meter"] is None or last_of(tmp_path)["iter"] > 3
