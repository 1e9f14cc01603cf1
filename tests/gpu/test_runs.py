"""The command on a GPU: resume, checkpoints on another device, graphs of steps, NCCL."""

import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn

import runner
from data.loaders import ImageBatches
from genutil.checkpoint import load_weights, read_checkpoint
from genutil.config import load_config
from models import build_model
from tests.conftest import ROOT

pytestmark = pytest.mark.gpu


@pytest.fixture
def run(device, write_app, tmp_path):
    """Runs the command on the device; gives the folder of the checkpoints."""

    def command(name, *argv):
        gpus = ["--gpus", "0"] if device.type == "cuda" else ["--gpus"]
        assert runner.main([f"app:{write_app()}", "--name", name, *argv, *gpus]) == 0
        return tmp_path / "checkpoints" / name

    return command


def weights(path):
    return read_checkpoint(path)["model"]


@pytest.mark.parametrize("extra", [[], ["--cuda_graph"], ["--amp", "bf16"]])
def test_two_epochs_are_one_and_one_resumed(run, extra):
    keys = ["--deterministic", "--lr_scheduler", "multistep", *extra]
    expected = weights(run("whole", *keys) / "last.pt")
    run("parts", "--num_epochs", "1", *keys)
    found = weights(run("parts", "--resume", "auto", *keys) / "last.pt")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_a_checkpoint_goes_to_the_cpu_and_back(run, write_app, device):
    path = run("moved") / "last.pt"
    images = torch.randn(4, 3, 16, 16)
    logits = []
    for place in (device, torch.device("cpu"), device):
        model = build_model(load_config(write_app())).to(place).eval()
        assert load_weights(path, model).epoch == 1
        with torch.no_grad():
            logits.append(model(images.to(place)).cpu())
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-5)
    assert torch.equal(logits[0], logits[2])


def test_a_captured_training_is_near_the_plain_one(run):
    """Bits may differ: a graph may hold other kernels of the same library."""
    plain, captured = (run(name, *extra) for name, extra in (("plain", []), ("graph", ["--cuda_graph"])))
    assert read_checkpoint(plain / "last.pt")["iter"] == read_checkpoint(captured / "last.pt")["iter"]
    found, expected = weights(captured / "last.pt"), weights(plain / "last.pt")
    torch.testing.assert_close(found["fc.weight"], expected["fc.weight"], rtol=0.05, atol=0.05)


def test_the_command_in_a_process_of_its_own(device, write_app):
    """`runner.py --gpus 0`: the devices are selected before torch is imported."""
    gpus = ["--gpus", "0"] if device.type == "cuda" else ["--gpus"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "runner.py"), f"app:{write_app()}", "--num_epochs", "1", *gpus],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "top1_accuracy" in done.stdout


def test_collectives_of_one_process(device, tmp_path):
    """NCCL on a GPU, gloo on the CPU: a sum, and a step of DistributedDataParallel."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        total = torch.arange(3.0, device=device)
        dist.all_reduce(total)
        assert total.tolist() == [0, 1, 2]
        model = nn.parallel.DistributedDataParallel(nn.Linear(4, 2).to(device))
        model(torch.randn(3, 4, device=device)).sum().backward()
        assert model.module.weight.grad.isfinite().all()
    finally:
        dist.destroy_process_group()


def test_batches_are_made_on_the_device(device):
    pixels = torch.randint(0, 256, (23, 3, 32, 32), dtype=torch.uint8)
    source = ImageBatches(
        pixels,
        torch.arange(23),
        5,
        [0.5] * 3,
        [0.5] * 3,
        shuffle=True,
        crop_padding=4,
        flip=True,
        device=device,
    )
    images, labels = (torch.cat(parts) for parts in zip(*source.batches(0), strict=True))
    assert images.device.type == labels.device.type == device.type
    assert sorted(labels.tolist()) == list(range(23))
    again = torch.cat([images for images, _ in source.batches(0)])
    assert torch.equal(images, again)
