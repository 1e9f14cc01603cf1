"""Which signals stop a run, and what a second one does."""

import os
import pty
import signal
import subprocess
import sys

import pytest

from genutil.checkpoint import read_checkpoint
from genutil.signals import StopRequest, stop_signals
from tests.conftest import ROOT
from tests.helpers.processes import end_of, folders, start, wait_for_line

ALL = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}


@pytest.fixture
def handlers(monkeypatch):
    """Puts the handlers back, and notes the signals that reach those from before."""
    received = []
    before = {signum: signal.signal(signum, lambda number, _: received.append(number)) for signum in ALL}
    yield received
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize("signum", sorted(ALL))
def test_the_first_signal_is_noted(handlers, signum):
    with StopRequest() as stop:
        os.kill(os.getpid(), signum)
    assert (stop.signum, handlers) == (signum, [])
    os.kill(os.getpid(), signum)
    assert handlers == [signum]  # the handlers from before are back


@pytest.mark.parametrize("second", sorted(ALL))
@pytest.mark.parametrize("patient", [False, True])
def test_a_second_signal(handlers, patient, second):
    """SIGHUP comes twice by itself, from the shell and from the system; a second SIGTERM ends the run."""
    with StopRequest(patient) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), second)
        assert stop.signum == signal.SIGTERM
        ends = not patient and second in (signal.SIGINT, signal.SIGTERM)
        assert handlers == [second] * ends


@pytest.mark.parametrize("patient", [False, True])
def test_a_signal_after_a_lost_connection(handlers, patient):
    with StopRequest(patient) as stop:
        for signum in (signal.SIGHUP, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), signum)
        assert (stop.signum, handlers) == (signal.SIGHUP, [])


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_that_was_ignored_at_the_start_stays_so(handlers, ignored):
    signal.signal(ignored, signal.SIG_IGN)
    assert set(stop_signals()) == ALL - {ignored}
    with StopRequest() as stop:
        os.kill(os.getpid(), ignored)
    assert (stop.signum, handlers) == (None, [])
    assert signal.getsignal(ignored) is signal.SIG_IGN


SLOW_TWO = pytest.param(["--processes", 2], marks=pytest.mark.slow, id="two")
SLOW_SEEDS = pytest.param(["--seeds", 1], marks=pytest.mark.slow, id="seeds")


@pytest.mark.slow
@pytest.mark.parametrize("more", [pytest.param([], id="alone"), SLOW_TWO, SLOW_SEEDS])
def test_under_nohup_a_lost_connection_changes_nothing(write_app, tmp_path, more):
    """SIGHUP to the whole group of processes, as the system sends it; then SIGTERM stops the run."""
    nohup = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    app = write_app(num_epochs=10_000)
    process = start(app, tmp_path, *more, start_new_session=True, preexec_fn=nohup)
    wait_for_line(process, "epoch 2, step")
    os.killpg(process.pid, signal.SIGHUP)
    for epoch in (4, 6):
        wait_for_line(process, f"epoch {epoch}, step")
    process.send_signal(signal.SIGTERM)
    _, errors = end_of(process, 120)
    assert process.returncode == 128 + signal.SIGTERM, errors


@pytest.mark.parametrize("more", [pytest.param([], id="alone"), SLOW_TWO])
def test_a_closed_terminal_saves(write_app, tmp_path, more):
    """The bar is drawn on a terminal that goes away; the system sends SIGHUP, and the shell once more."""
    app = write_app(num_epochs=10_000, data_args={"num_images": 200})
    ours, theirs = pty.openpty()
    argv = map(str, [f"app:{app}", *folders(tmp_path), "--log_interval", 1, *more])
    code = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "os.execv(sys.executable, [sys.executable, 'runner.py', *sys.argv[1:]])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *argv], cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while b"epoch 2 of" not in seen:
        seen = seen[-100:] + os.read(ours, 1000)
    os.close(ours)
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(timeout=120) == 128 + signal.SIGHUP
    saved = read_checkpoint(tmp_path / "checkpoints" / "tiny" / "last.pt")
    assert saved["iter"] >= 25
