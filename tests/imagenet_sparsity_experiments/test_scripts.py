"""The shell scripts and multiproc.py, as a user starts them."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from genutil.checkpoint import read_checkpoint
from tests.conftest import ROOT
from tests.helpers.processes import end_of
from tests.imagenet_sparsity_experiments.toy import SMALL, make_images, raport
from wirings.checksum import digest

FOLDER = ROOT / "imagenet_sparsity_experiments"
EXAMPLES = sorted((FOLDER / "examples").glob("*.sh"))
STATE = ("model", "optimizer", "last_epoch", "best_val", "iter", "rng")
RECIPE = {
    "epochs": 100, "batch_size": 64, "lr": 0.256, "lr_schedule": "cosine", "warmup": 5, "momentum": 0.875,
    "weight_decay": 2**-15, "label_smoothing": 0.1, "mixup": 0.0, "bn_weight_decay": False,
    "arch": "resnet50",
}  # fmt: skip


@pytest.fixture
def place(tmp_path):
    """A folder with datasets/imagenet in it."""
    make_images(tmp_path / "datasets" / "imagenet")
    return tmp_path


def start(place, *command, processes=2):
    environment = {
        **os.environ, "PYTHON": sys.executable, "PROCESSES": str(processes), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(list(map(str, command)), cwd=place, env=environment, text=True, **pipes)


def ended(process, status=0):
    out, errors = end_of(process, 200)
    assert process.returncode == status, errors
    return out, errors


def script(name):
    return "bash", FOLDER / "exp" / name


@pytest.mark.slow
def test_starter_and_test_in_two_processes(place):
    """The recipe's options stand in the script; those that make it small follow."""
    small = [*SMALL, "--epochs", 2, "--warmup", 1, "--lr", "0.01"]
    out, errors = ended(start(place, *script("starter.sh"), "allsparse10", "first", *small))
    assert "resnet18_allsparse10" in out
    assert errors.count("| fc ") == 2
    report = raport(place / "runs" / "first")
    assert (report["processes"], report["steps"], report["epochs"]) == (2, 4, 2)
    assert (report["config"]["momentum"], report["options"]["optimizer_batch_size"]) == (0.875, 8)
    best = place / "runs" / "first" / "model_best.pth.tar"
    out, _ = ended(start(place, *script("test.sh"), "allsparse10", best, *SMALL))
    assert "top1_accuracy" in out
    found = raport(place / "runs" / "test")
    assert found["images"] == 6
    assert found["top1_accuracy"] == pytest.approx(report["best_val"])
    out, errors = ended(start(place, *script("test.sh"), "allsparse10", "no.tar", *SMALL), status=2)
    assert errors.count("no.tar: there is no such file") == 1
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_training_that_is_stopped_goes_on_exactly(place, signum):
    common = [*SMALL, "--epochs", 6, "--warmup", 1, "--lr", "0.01", "-p", 1, "--mixup", "0.2"]
    ended(start(place, *script("starter.sh"), "allsparse10", "whole", *common))
    process = start(place, *script("starter.sh"), "allsparse10", "parts", *common)
    for line in process.stderr:
        if line.startswith("epoch 2, step 3:"):
            break
    process.send_signal(signum)
    _, errors = ended(process, status=128 + signum)
    assert "resume with --resume auto" in errors
    stopped = read_checkpoint(place / "runs" / "parts" / "checkpoint.pth.tar")
    assert 3 <= stopped["iter"] < 12
    ended(start(place, *script("starter.sh"), "allsparse10", "parts", *common, "--resume", "auto"))
    whole, parts = (
        read_checkpoint(place / "runs" / name / "checkpoint.pth.tar") for name in ("whole", "parts")
    )
    for key in STATE:
        assert digest(whole[key]) == digest(parts[key]), key


@pytest.mark.slow
def test_two_machines(place):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [FOLDER / "main.py", "datasets/imagenet", *SMALL, "--epochs", 1, "--training-only"]
    machines = [
        start(
            place, sys.executable, FOLDER / "multiproc.py", "--nnodes", 2, "--node_rank", rank,
            "--master_port", port, *program, "--workspace", f"machine{rank}",
        )
        for rank in (0, 1)
    ]  # fmt: skip
    first, second = (ended(machine) for machine in machines)
    assert "train_top1_accuracy" in first[0]
    assert second[0] == ""
    assert raport(place / "machine0")["processes"] == 2
    assert not (place / "machine1").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--nproc_per_node", 0, "main.py"], "--nproc_per_node: must be at least 1"),
        (["--nnodes", 2, "--node_rank", 2, "main.py"], "--node_rank: must be 0 to 1, got 2"),
        (["nowhere.py"], "nowhere.py: there is no such file; name main.py"),
        (
            ["--nproc_per_node", 2, FOLDER / "main.py", "datasets/imagenet", "--lr", "0"],
            "--lr: must be greater than 0, got 0.0",
        ),
    ],
)
def test_mistakes_are_reported_once(place, argv, message):
    _, errors = ended(start(place, sys.executable, FOLDER / "multiproc.py", *argv), status=2)
    assert errors.count(message) == 1
    assert "Traceback" not in errors


@pytest.mark.parametrize("name", ["starter.sh", "test.sh"])
def test_scripts_tell_how_they_are_used(place, name):
    _, errors = ended(start(place, *script(name), "allsparse10"), status=2)
    assert errors.startswith(f"usage: bash exp/{name} CONFIG ")


STANDIN = """#!/usr/bin/env bash
echo "$@"
"""


def arguments(place, path, *argv):
    """The command lines that a script would start."""
    standin = place / "python"
    standin.write_text(STANDIN)
    standin.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(standin)}
    environment.pop("PROCESSES", None)
    done = subprocess.run(
        ["bash", str(path), *argv], cwd=place, env=environment, capture_output=True, text=True, check=True
    )
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_commands(path, tmp_path):
    """Each gives options that main.py accepts; those of training are the published recipe."""
    from imagenet_sparsity_experiments.options import parse_options

    argv = ["dense", "best.pth.tar"] if "EVAL" in path.stem else []
    lines = arguments(tmp_path, path, *argv)
    assert len(lines) == (8 if "BENCHMARK" in path.stem else 1)
    for line in lines:
        place = line.index(str(FOLDER / "main.py"))
        options = parse_options(line[place + 1 :])
        values = options.values
        assert options.config.amp == ("bf16" if "_AMP_" in path.stem else None)
        assert values["benchmark_inference"] == ("BENCHMARK" in path.stem)
        assert values["evaluate"] == ("EVAL" in path.stem)
        if path.stem.endswith("GPU"):
            processes = int(line[line.index("--nproc_per_node") + 1])
            assert path.stem.endswith(f"_{processes}GPU")
            step = max(values["optimizer_batch_size"], values["batch_size"] * processes)
            assert step == 256
            changed = {"batch_size"}
            assert {key: values[key] for key in RECIPE.keys() - changed} == {
                key: RECIPE[key] for key in RECIPE.keys() - changed
            }
            assert values["workspace"] == f"runs/{path.stem}"


def test_the_scripts_hold_the_published_recipe(tmp_path):
    from imagenet_sparsity_experiments.options import parse_options

    (line,) = arguments(tmp_path, FOLDER / "exp" / "starter.sh", "ignorefirst30", "mine")
    assert line[:3] == [str(FOLDER / "multiproc.py"), "--nproc_per_node", "4"]
    options = parse_options(line[line.index(str(FOLDER / "main.py")) + 1 :])
    values = options.values
    assert {key: values[key] for key in RECIPE} == RECIPE
    assert (values["data"], values["workspace"]) == ("datasets/imagenet", "runs/mine")
