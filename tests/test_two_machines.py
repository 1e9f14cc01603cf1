"""Two machines, each with a network of its own, whose link breaks while they train together."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from genutil.checkpoint import read_checkpoint
from tests.conftest import ROOT
from tests.helpers.equality import STATE, same
from tests.helpers.processes import children_of, folders

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

_LIMIT = 120
"""Seconds to wait for a process that should have ended; then it counts as hung."""


def ip(*words):
    return subprocess.run(["ip", *map(str, words)], check=True, capture_output=True, text=True)


class Machine:
    """A network namespace with one end of a cable.

    Attributes:
        name: of the namespace.
        device, address: of its end of the cable.
    """

    def __init__(self, name, device, address):
        self.name, self.device, self.address = name, device, address
        ip("netns", "add", name)

    def connect(self):
        """Give the end of the cable its address, and set it up."""
        ip("-n", self.name, "address", "add", f"{self.address}/24", "dev", self.device)
        ip("-n", self.name, "link", "set", "lo", "up")
        self.link("up")

    def link(self, state):
        """Set the end of the cable `up` or `down`."""
        ip("-n", self.name, "link", "set", self.device, state)

    def start(self, app, folder, number, master, *argv):
        """An agent of torchrun with one process, which reports what it prints line by line."""
        torchrun = [
            "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", number, "--nproc-per-node", "1",
            "--master-addr", master, "--master-port", "29500", ROOT / "runner.py",
        ]  # fmt: skip
        command = [
            "ip",
            "netns",
            "exec",
            self.name,
            sys.executable,
            *torchrun,
            f"app:{app}",
            *folders(folder),
        ]
        variables = {
            **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": self.device,
            "PYTHONFAULTHANDLER": "1",
        }  # fmt: skip
        return Agent(
            subprocess.Popen(
                [*map(str, command), *map(str, argv)], cwd=ROOT, env=variables, text=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )
        )  # fmt: skip


class Agent:
    """A running agent. Its messages are read as they come, so that its pipe never fills."""

    def __init__(self, process):
        self.process, self.lines, self.news = process, [], threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self.news:
                self.lines.append(line)
                self.news.notify_all()

    def wait_for(self, pattern):
        with self.news:
            found = self.news.wait_for(lambda: re.search(pattern, "".join(self.lines)), _LIMIT)
        assert found, f"it never printed {pattern}:\n{''.join(self.lines)}"

    def end(self):
        """(status, messages)."""
        try:
            status = self.process.wait(_LIMIT)
        except subprocess.TimeoutExpired:
            self.kill(signal.SIGABRT)  # faulthandler prints the stacks
            self.reader.join(5)
            raise AssertionError(f"it hangs:\n{''.join(self.lines)}") from None
        self.reader.join(_LIMIT)
        return status, "".join(self.lines)

    def kill(self, signum=signal.SIGKILL):
        """End the agent and its process; the agent by itself would wait for it."""
        for pid in [*children_of(self.process.pid), self.process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signum)
        self.process.wait()


@pytest.fixture
def machines():
    """Two network namespaces that a cable connects; they are removed at the end."""
    if shutil.which("ip") is None:
        pytest.skip("needs the command ip (iproute2)")
    number = os.getpid()
    names, devices = (
        [f"wirings-{number}-{n}" for n in range(2)],
        [f"wir{number % 10**8}n{n}" for n in range(2)],
    )
    made = []
    try:
        try:
            made += [
                Machine(*parts) for parts in zip(names, devices, ("10.99.0.1", "10.99.0.2"), strict=True)
            ]
            ends = ("type", "veth", "peer", "name", devices[1], "netns", names[1])
            ip("link", "add", devices[0], "netns", names[0], *ends)
            for machine in made:
                machine.connect()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
        yield made
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.fixture
def start(write_app, tmp_path, machines):
    """Starts the same training on both machines; what still runs at the end of the test is killed."""
    app = write_app(data_args={"num_images": 400}, num_epochs=3, log_interval=5, checkpoint_interval_steps=7)
    agents = []

    def both(name, *argv):
        pair = [
            machine.start(app, tmp_path / f"{name}{number}", number, machines[0].address, *argv)
            for number, machine in enumerate(machines)
        ]
        agents.extend(pair)
        return pair

    yield both
    for agent in agents:
        agent.kill()


def last_of(folder):
    return read_checkpoint(folder / "checkpoints" / "tiny" / "last.pt")


LOST = r"(process 1 is gone or hung, of 2|the connections between the 2 processes broke).*Timed out waiting"


def test_a_link_that_breaks_ends_both_and_costs_nothing_but_time(start, machines, tmp_path):
    """Cut in epoch 2 of 3. Resumed on both, it ends with the bits of a training that nothing happened to."""
    first, second = start("cut", "--timeout", 5)
    first.wait_for("epoch 2, step")
    machines[1].link("down")
    for status, messages in [first.end(), second.end()]:
        ours = re.split(r"^E\d{4} ", messages, flags=re.MULTILINE)[0]  # torchrun's own report follows
        assert status == 1, messages
        assert len(re.findall(LOST, ours)) == 1, messages
        assert "Traceback" not in ours
    assert not (tmp_path / "cut1").exists()
    files = sorted((tmp_path / "cut0" / "checkpoints" / "tiny").glob("*.pt"))
    assert [read_checkpoint(file)["iter"] for file in files if file.name == "init.pt"] == [0]
    assert all(read_checkpoint(file) for file in files)
    assert 50 <= last_of(tmp_path / "cut0")["iter"] < 150
    machines[1].link("up")
    for argv in (["cut", "--resume", "auto"], ["whole"]):
        for status, messages in [agent.end() for agent in start(*argv)]:
            assert status == 0, messages
    for key in STATE:
        assert same(last_of(tmp_path / "cut0")[key], last_of(tmp_path / "whole0")[key]), key
