"""The job file for SLURM, run with stand-ins for SLURM's own commands; in `make test` for torchrun, too."""

import os
import signal
import subprocess
import sys

import pytest

from genutil.checkpoint import read_checkpoint
from tests.conftest import ROOT
from tests.helpers.processes import end_of

STANDINS = {
    "srun": 'exec "$@"',
    "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
    "scontrol": 'echo "$@" >> "$CALLS"; if [ "$1" = show ]; then echo 127.0.0.1; echo other; fi',
}


@pytest.fixture
def job(tmp_path, write_app):
    """Starts the job; the experiment is the tiny one."""
    commands = tmp_path / "commands"
    commands.mkdir()
    for name, text in STANDINS.items():
        (commands / name).write_text(f"#!/bin/bash\n{text}\n")
        (commands / name).chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"),
        "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "1", "SLURM_GPUS_ON_NODE": "2",
        "SLURM_JOB_ID": str(os.getpid()),
    }  # fmt: skip

    def start(*argv, torchrun=STANDINS["torchrun"]):
        (commands / "torchrun").write_text(f"#!/bin/bash\n{torchrun}\n")
        command = ["bash", "docs/train.slurm", str(write_app()), *argv]
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start


def calls(tmp_path):
    return (tmp_path / "calls").read_text().splitlines()


WORDS = 'echo "$@" > "$CALLS.torchrun"; '


@pytest.mark.parametrize("status", [0, 1])
def test_a_job_ends_as_its_training_does(job, tmp_path, status):
    process = job("--lr", "0.5", torchrun=f"{WORDS} exit {status}")
    _, errors = end_of(process, 60)
    assert process.returncode == status, errors
    assert calls(tmp_path) == ["show hostnames node[1-2]"]
    words = (tmp_path / "calls.torchrun").read_text()
    assert words.startswith("--nnodes 1 --nproc-per-node 2 --max-restarts 3 ")
    assert "--rdzv-endpoint 127.0.0.1:29500 runner.py app:" in words
    assert words.endswith("tiny.yml --lr 0.5 --resume auto\n")


def test_a_job_whose_time_is_over_waits_until_all_is_saved(job, tmp_path):
    saving = (
        f"trap 'sleep 1; touch {tmp_path}/saved; exit 143' TERM; echo trains >&2; while :; do sleep 0.1; done"
    )
    process = job(torchrun=saving)
    for line in process.stderr:
        if "trains" in line:
            break
    process.send_signal(signal.SIGUSR1)
    _, errors = end_of(process, 60)
    assert process.returncode == 0, errors
    assert (tmp_path / "saved").exists()
    assert calls(tmp_path)[-1] == f"requeue {os.getpid()}"


@pytest.mark.slow
def test_a_job_trains_to_its_end(job, tmp_path):
    process = job()
    out, errors = end_of(process, 120)
    assert process.returncode == 0, errors
    assert "2 processes on CPUs" in errors
    assert "top1_accuracy" in out
    assert calls(tmp_path) == ["show hostnames node[1-2]"]


@pytest.mark.slow
def test_a_mistake_ends_the_job(job, tmp_path):
    process = job("--lr", "-1")
    _, errors = end_of(process, 120)
    assert process.returncode != 0
    assert "lr: must be greater than 0" in errors
    assert len(calls(tmp_path)) == 1


@pytest.mark.slow
def test_a_job_whose_time_is_over_saves_and_queues_itself_again(job, tmp_path):
    process = job("--num_epochs", "1000")
    for line in process.stderr:
        if "epoch 2, step" in line:
            break
    process.send_signal(signal.SIGUSR1)
    _, errors = end_of(process, 120)
    assert process.returncode == 0, errors
    assert "resume with --resume auto" in errors
    assert calls(tmp_path)[-1] == f"requeue {os.getpid()}"
    assert read_checkpoint(tmp_path / "checkpoints" / "tiny" / "last.pt")["iter"] >= 3
