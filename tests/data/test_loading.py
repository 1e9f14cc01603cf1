"""Loading where shared memory, open files or processes are scarce: the run goes through, with one warning."""

import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from data import loading
from data.loading import Loading
from genutil.errors import RunError
from tests.conftest import ROOT
from tests.data.test_imagenet import folder, imagenet  # noqa: F401  (a fixture)

PROGRAM = """
import logging, sys
from tests.data.test_imagenet import imagenet
logging.basicConfig(level=logging.WARNING, format="%(message)s")
data = imagenet(sys.argv[1], batch_size=4, image_size=64, workers=2, output_size=3)
labels = [labels.tolist() for part in (data.train, data.val) for e in (0, 1) for _, labels in part.batches(e)]
print(len(labels), sum(map(sum, labels)))
"""
"""Two epochs of training and validation images."""
ALL = "12 36\n"
MOUNT = 'mount -t tmpfs -o "$0" tmpfs /dev/shm && exec "$@"'


def run(path, *before, **options):
    command = [*before, sys.executable, "-c", PROGRAM, str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, **options)


def with_shared_memory(path, options):
    """The program where /dev/shm is another one."""
    isolated = ("unshare", "-m", "sh", "-c", MOUNT, options)
    if not shutil.which("unshare") or subprocess.run([*isolated, "true"], capture_output=True).returncode:
        pytest.skip("mounting another /dev/shm is not permitted here")
    return run(path, *isolated)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        pytest.param(
            "160k",
            ["shared memory is too small for a batch", "batches come through pipes", "/dev/shm has 0.2 MiB"],
            marks=pytest.mark.slow,
        ),
        ("64k", ["No space left on device", "decoded in this process", "/dev/shm has 0.1 MiB"]),
    ],
)
def test_small_shared_memory(folder, size, words):  # noqa: F811
    """A batch has 48 KiB; the locks of the loading processes have 28 pages."""
    done = with_shared_memory(folder, f"size={size}")
    assert (done.returncode, done.stdout) == (0, ALL)
    assert done.stderr.count("\n") == 1
    for word in (*words, "--shm-size", "--workers 0"):
        assert word in done.stderr


@pytest.mark.slow
def test_read_only_shared_memory(folder):  # noqa: F811
    done = with_shared_memory(folder, "size=64m,ro")
    assert (done.returncode, done.stdout) == (0, ALL)
    assert done.stderr.count("\n") == 1
    for word in ("Read-only file system", "decoded in this process", "64.0 MiB", "read-only", "--workers 0"):
        assert word in done.stderr


@pytest.mark.parametrize(("limit", "workers"), [pytest.param(32, 0, marks=pytest.mark.slow), (72, 1)])
def test_few_open_files(folder, limit, workers):  # noqa: F811
    def lower():
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    done = run(folder, preexec_fn=lower)
    assert (done.returncode, done.stdout) == (0, ALL)
    assert done.stderr.count("\n") == 1
    assert f"{workers} loading processes are used instead of 2" in done.stderr
    assert f"may open {limit} files only; raise that number with `ulimit -n`" in done.stderr


def test_pipes_give_the_same_batches(folder, monkeypatch, caplog):  # noqa: F811
    expected = list(imagenet(folder).train.batches(2))
    monkeypatch.setattr(loading, "_free_shared_memory", lambda: 0)
    data = imagenet(folder, workers=2)
    found = [*data.val.batches(0), *data.train.batches(2)][-len(expected) :]
    for (images, labels), (others, theirs) in zip(found, expected, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, theirs)
    assert caplog.text.count("batches come through pipes") == 1  # for both sets together


class NoSharedMemory(torch.utils.data.Dataset):
    """Reading ends with a bus error, as writing to shared memory without room does, while it is in use."""

    def __init__(self, files, sets):
        self.files, self.sets = files, sets

    def __getitem__(self, item):
        if self.sets.share:
            os.kill(os.getpid(), signal.SIGBUS)
        return self.files[item]


def test_after_a_bus_error_no_shared_memory_is_used(folder, caplog):  # noqa: F811
    expected = [labels.tolist() for _, labels in imagenet(folder).train.batches(0)]
    train = imagenet(folder, workers=1).train
    train._files = NoSharedMemory(train._files, train._loading)
    train._loader = train._make_loader()
    assert [labels.tolist() for _, labels in train.batches(0)] == expected
    assert "starting new ones at batch 0, without shared memory; /dev/shm has" in caplog.text
    assert "--shm-size" in caplog.text


def test_the_second_loss_at_a_batch_names_shared_memory():
    state, error = Loading(2), RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    state.recover(error, 3, again=False)
    with pytest.raises(RunError) as caught:
        state.recover(error, 3, again=True)
    for word in (
        "killed twice at batch 3",
        "/dev/shm has",
        "--shm-size",
        "fewer with --workers",
        "--workers 0",
    ):
        assert word in str(caught.value)


def test_too_many_open_files_while_reading(caplog):
    state, error = Loading(2), OSError(24, "Too many open files")
    state.recover(error, 0, again=False)
    assert state.workers == 0
    assert "cannot be used (Too many open files): images are decoded in this process" in caplog.text
    with pytest.raises(RunError, match="raise the number of files with `ulimit -n`"):
        state.recover(error, 0, again=True)


def test_errors_of_other_kinds_are_not_hidden():
    for error in (RuntimeError("of a transform"), KeyError("x")):
        with pytest.raises(type(error)):
            Loading(2).recover(error, 0, again=False)
