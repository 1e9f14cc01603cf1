"""How a command's process ends."""

import os
import subprocess
import sys

from tests.conftest import ROOT

HELD_UP = """
import multiprocessing, sys, threading, time
from genutil.command import leave
multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,)).start()
threading.Thread(target=time.sleep, args=(1000,)).start()
sys.stdout.write("its last word")
leave(3)
"""


def test_one_of_several_processes_ends_whatever_still_runs_in_it():
    environment = {**os.environ, "RANK": "1", "WORLD_SIZE": "2"}
    ended = subprocess.run(
        [sys.executable, "-c", HELD_UP],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (3, "its last word")


def test_a_process_alone_cleans_up_first():
    code = "import atexit; from genutil.command import leave; atexit.register(print, 'clean'); leave(3)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stdout) == (3, "clean\n")
