"""How a command's process ends."""

import errno
import importlib
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import runner
from fig import table
from genutil.exit_codes import exit_status
from imagenet_sparsity_experiments import main
from tests.conftest import ROOT

RESNETS = "imagenet_sparsity_experiments"
SCRIPTS = [["runner.py"], [f"{RESNETS}/main.py"], [f"{RESNETS}/multiproc.py"]]
PICTURES = ["curves", "pareto", "sparsity", "table", "wiring_gif", "wiring_page", "results"]
PROGRAMS = [
    *SCRIPTS,
    ["-m", "fig.table"],
    *(pytest.param(["-m", f"fig.{name}"], marks=pytest.mark.slow) for name in PICTURES if name != "table"),
]

HELD_UP = """
import multiprocessing, sys, threading, time
from genutil.exit_codes import exit_process
multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,)).start()
threading.Thread(target=time.sleep, args=(1000,)).start()
sys.stdout.write("its last word")
exit_process(3)
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
    code = (
        "import atexit; from genutil.exit_codes import exit_process;"
        "atexit.register(print, 'clean'); exit_process(3)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stdout) == (3, "clean\n")


SCRIPT = """
import logging, sys
from genutil.exit_codes import exit_status, exit_process
from genutil.runs.run_folder import set_up_logging
def command():
    set_up_logging()
    logging.getLogger("x").info("top-1 of épée: 76.1 ± 0.5 …")
    for _ in range(3):
        print("±" * 20_000, flush=True)
    print("the end", file=sys.stderr)
    return 0
exit_process(exit_status(command))
"""
"""A command with output that ASCII lacks, and more of it than a pipe holds."""


@pytest.fixture
def in_shell(tmp_path):
    """Runs a line of a shell in which `run` is the command above."""
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    python = shlex.join([sys.executable, str(tmp_path / "script.py")])

    def in_shell(line, **environment):
        changed = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        line = f"run() {{ {python}; }}; {line}"
        return subprocess.run(["bash", "-c", line], cwd=ROOT, env=changed, capture_output=True, text=True)

    return in_shell


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["ascii", "C"],
)
def test_characters_that_the_encoding_lacks_are_replaced(in_shell, environment):
    ended = in_shell("run", **environment)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr
    assert ended.stdout.startswith("\\xb1\\xb1")
    assert "top-1 of \\xe9p\\xe9e: 76.1 \\xb1 0.5" in ended.stderr


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("run >&-", 0, ""),
        ("run | head -c 10 >/dev/null; exit ${PIPESTATUS[0]}", 0, ""),
        ("run 2>&1 >/dev/null | head -c 3 >/dev/null; exit ${PIPESTATUS[0]}", 0, None),
        ("run 2>/dev/full >/dev/null", 0, None),
        ("run 2>&- >/dev/null", 0, None),
        ("run >/dev/full", 2, "standard output: cannot be written to (No space left on device)"),
    ],
)
def test_an_output_that_takes_nothing_ends_no_command(in_shell, line, status, message):
    ended = in_shell(line)
    assert ended.returncode == status, ended.stderr
    if message is None:  # standard error is what takes nothing
        assert ended.stderr == ""
    else:
        assert ended.stderr.splitlines()[1:] == ["the end", *filter(None, [message])]


def test_files_never_take_the_place_of_a_closed_output(tmp_path):
    code = (
        "import os; from genutil.exit_codes import exit_status\n"
        f"def run(): os.write(os.open({str(tmp_path / 'file')!r}, os.O_CREAT | os.O_RDWR), b'x'); "
        "os.write(1, b'noise'); os.write(2, b'noise'); return 0\n"
        "exit_status(run)"
    )
    command = f"{shlex.join([sys.executable, '-c', code])} <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", command], cwd=ROOT).returncode == 0
    assert (tmp_path / "file").read_text() == "x"


class Lost(io.StringIO):
    """A standard output that is gone."""

    def __init__(self, code):
        super().__init__()
        self.code = code

    def write(self, text):
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize(("code", "status"), [(errno.EPIPE, 0), (errno.ENOSPC, 2)])
def test_a_training_without_output_still_saves_its_results(write_app, tmp_path, monkeypatch, code, status):
    app = write_app(num_epochs=1)
    monkeypatch.setattr(sys, "stdout", Lost(code))
    assert runner.main([f"app:{app}"]) == status
    (results,) = tmp_path.glob("runs/*/results.json")
    assert json.loads(results.read_text())["epochs"] == 1


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_of_every_program_can_be_printed(program):
    """By an encoding that lacks its signs, and without the script's folder among the places of modules."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    if program[0] != "-m":
        environment["PYTHONSAFEPATH"] = "1"
        del environment["PYTHONPATH"]
    command = [sys.executable, *program, "--help"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("usage: ")


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_has_the_one_frame(program):
    """Its output is lost: without the frame, Python itself would end with a traceback and status 120."""
    command = f"{shlex.join([sys.executable, *program, '--help'])} >/dev/full"
    ended = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr == "standard output: cannot be written to (No space left on device)\n"


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_has_the_one_frame(name, monkeypatch):
    """As the two above, but in this process: without the time that starting a Python takes."""
    program = importlib.import_module(f"fig.{name}")
    text = Path(program.__file__).read_text()
    assert text.endswith('if __name__ == "__main__":\n    sys.exit(main())\n')
    page = io.BytesIO()
    for output, status in ((io.TextIOWrapper(page, "ascii"), 0), (Lost(errno.ENOSPC), 2)):
        monkeypatch.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit) as ended:
            program.main(["--help"])
        assert ended.value.code == status
    assert page.getvalue().startswith(b"usage: ")


def test_a_folder_that_is_gone_is_named(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    for command in (runner.main, main.main, table.main):
        assert command(["x"]) == 2
        said = capsys.readouterr().err
        assert (
            said == "the current folder cannot be used (No such file or directory); change to another one\n"
        )


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EMFILE])
def test_what_the_machine_refuses_is_one_line(capsys, code):
    def command():
        raise OSError(code, os.strerror(code), "/some/folder")

    assert exit_status(command) == 2
    assert capsys.readouterr().err == f"/some/folder: {os.strerror(code)}\n"


def test_a_file_that_a_program_forgot_is_its_own_mistake():
    with pytest.raises(FileNotFoundError):
        exit_status(lambda: len(Path("/nowhere/x").read_text()))


@pytest.mark.parametrize("key", ["save_dir", "log_dir"])
def test_a_folder_that_cannot_be_made(write_app, tmp_path, capsys, key):
    (tmp_path / "file").write_text("")
    for name, place in (("one", tmp_path / "file" / "below"), ("two", "/proc/below")):
        assert runner.main([f"app:{write_app(num_epochs=1)}", "--name", name, f"--{key}", str(place)]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert str(place) in said and "Traceback" not in said


def test_a_checkpoint_that_may_not_be_looked_at(write_app, monkeypatch, capsys):
    """`auto` asks whether the file is there, which needs the right to search its folder."""
    is_file = Path.is_file

    def refuse(path):
        if path.name == "last.pt":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refuse)
    app = write_app(data="data.digits:Digits")
    assert runner.main([f"app:{app}", "--resume", "auto"]) == 2
    assert "last.pt: Permission denied\n" in capsys.readouterr().err
